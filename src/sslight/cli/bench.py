"""``sslight bench``: how fast the loader and the step are here, on your data and recipe, and what holds them up."""

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from sslight.config import PretrainSettings, load_recipe, parse_assignments

if TYPE_CHECKING:
    from sslight.api.bench import LoaderSpeed, StepSpeed

bench = typer.Typer(no_args_is_help=True, help="Measure the loader or the step on your own data and recipe.")

Recipe = Annotated[str, typer.Argument(help="A recipe (see `sslight recipes`) or the path of a YAML file.")]
Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings that differ from the recipe, such as data.train=IMAGES."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


@bench.command()
def loader(
    recipe: Recipe,
    settings: Settings = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long to load.")] = 15.0,
    as_json: AsJson = False,
) -> None:
    """Load batches with nothing else to do: images a second, and the share of what bare decoding would reach."""
    from sslight.api.bench import bench_loader

    speed = bench_loader(_settings(recipe, settings), seconds=seconds)
    if as_json:
        print(json.dumps(dataclasses.asdict(speed)))
    else:
        _print_loader(speed)


@bench.command()
def step(
    recipe: Recipe,
    settings: Settings = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps to time, after three to warm up.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Take training steps, loader included: images a second, the parts of a step, and memory."""
    from sslight.api.bench import bench_step

    speed = bench_step(_settings(recipe, settings), steps=steps)
    if as_json:
        print(json.dumps(dataclasses.asdict(speed)))
    else:
        _print_step(speed)


def _settings(recipe: str, words: list[str] | None) -> PretrainSettings:
    settings = load_recipe(recipe, parse_assignments(words or []))
    if not settings.data.train:
        raise ValueError("data.train is not set: give your images, such as data.train=images (or synthetic:2000).")
    return settings


def _print_loader(speed: "LoaderSpeed") -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row(
        "images", f"{speed.images:,} in {speed.seconds:.1f} s, {speed.workers} workers on {speed.cores} cores"
    )
    table.add_row("speed", f"{speed.images_per_second:.0f} images/s, {speed.images_per_second_per_core:.0f} a core")
    table.add_row("of bare decoding", f"{speed.share_of_decoding_limit:.0%}")
    table.add_row(
        "an image alone",
        f"reading {speed.ms_reading:.2f} ms, decoding {speed.ms_decoding:.2f} ms, views {speed.ms_views:.2f} ms",
    )
    table.add_row("bottleneck", speed.bottleneck)
    Console(soft_wrap=True, highlight=False).print(table, markup=False)


def _print_step(speed: "StepSpeed") -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("device", f"{speed.device}, precision={speed.precision}")
    table.add_row("speed", f"{speed.images_per_second:.0f} images/s, {speed.ms_per_step:.0f} ms a step")
    for name, ms in speed.parts.items():
        table.add_row(f"  {name}", f"{ms:.1f} ms, {ms / speed.ms_per_step:.0%}")
    table.add_row("peak memory", f"{speed.peak_memory_mib:,.0f} MiB")
    table.add_row("bottleneck", speed.bottleneck)
    Console(soft_wrap=True, highlight=False).print(table, markup=False)
