"""``sslight bench``: how fast the loader and the step are here, on your data and recipe, and what holds them up."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sslight.cli.terminal import AsJson, facts, show
from sslight.config import PretrainSettings, load_recipe, parse_assignments

if TYPE_CHECKING:
    from sslight.api.bench import LoaderSpeed, StepSpeed

bench = typer.Typer(no_args_is_help=True, help="Measure the loader or the step on your own data and recipe.")

Recipe = Annotated[str, typer.Argument(help="A recipe (see `sslight recipes`) or the path of a YAML file.")]
Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings that differ from the recipe, such as data.train=IMAGES."),
]


@bench.command()
def loader(
    recipe: Recipe,
    settings: Settings = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long to load.")] = 15.0,
    as_json: AsJson = False,
) -> None:
    """Load batches with nothing else to do: images a second, and the share of what bare decoding would reach."""
    resolved, steps = _settings(recipe, settings)
    if steps is not None:
        raise ValueError(f"steps={steps} would have no effect: give --seconds, the time to load.")
    from sslight.api.bench import bench_loader

    speed = bench_loader(resolved, seconds=seconds)
    show(speed, asdict(speed), _print_loader, as_json=as_json)


@bench.command()
def step(
    recipe: Recipe,
    settings: Settings = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps to time, after three to warm up; steps=N does the same.", show_default="20"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take training steps, loader included: images a second, the parts of a step, and memory."""
    resolved, typed = _settings(recipe, settings)
    if None not in (steps, typed):
        raise ValueError(f"--steps {steps} and steps={typed} are both given: keep one.")
    from sslight.api.bench import bench_step

    speed = bench_step(resolved, steps=steps or typed or 20)
    show(speed, asdict(speed), _print_step, as_json=as_json)


def _settings(recipe: str, words: list[str] | None) -> tuple[PretrainSettings, int | None]:
    """The settings of the run that is measured, and ``steps`` if it is typed."""
    typed: dict[str, Any] = parse_assignments(words or [])
    settings = load_recipe(recipe, typed)
    if not settings.data.train:
        raise ValueError("data.train is not set: give your images, such as data.train=images (or synthetic:2000).")
    return settings, settings.steps if typed.get("steps") is not None else None


def _print_loader(speed: "LoaderSpeed") -> None:
    parts = (speed.ms_reading, speed.ms_decoding, speed.ms_views)
    facts(
        [
            ("images", f"{speed.images:,} in {speed.seconds:.1f} s, {speed.workers} workers on {speed.cores} cores"),
            ("speed", f"{speed.images_per_second:.0f} images/s, {speed.images_per_second_per_core:.0f} a core"),
            ("of bare decoding", f"{speed.share_of_decoding_limit:.0%}"),
            ("an image alone", "reading {:.2f} ms, decoding {:.2f} ms, views {:.2f} ms".format(*parts)),
            ("bottleneck", speed.bottleneck),
        ]
    )


def _print_step(speed: "StepSpeed") -> None:
    facts(
        [
            ("device", f"{speed.device}, precision={speed.precision}"),
            ("speed", f"{speed.images_per_second:.0f} images/s, {speed.ms_per_step:.0f} ms a step"),
            *((f"  {name}", f"{ms:.1f} ms, {ms / speed.ms_per_step:.0%}") for name, ms in speed.parts.items()),
            ("peak memory", f"{speed.peak_memory_mib:,.0f} MiB"),
            ("bottleneck", speed.bottleneck),
        ]
    )
