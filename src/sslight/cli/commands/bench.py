"""``sslight bench``: how fast the loader and the training step are, and what limits them."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from sslight.cli.grammar import OneCommand, Several, Words
from sslight.cli.terminal import AsJson, facts, show
from sslight.config import BenchSettings, load_recipe, read_words, take_settings

if TYPE_CHECKING:
    from sslight.pretraining.speed import LoaderSpeed, StepSpeed

bench = typer.Typer(
    cls=Several, no_args_is_help=True, help="Measure the speed of the loader or the training step on your own images."
)


_LOADED = ("data.", "views.", "probe.linear", "batch_size", "accumulate", "workers", "seed")
_NOT_LOADED = ("data.val", "views.mean", "views.std")
_NOT_IN_A_STEP = (
    *("epochs", "output", "resume", "init_from", "log", "profile", "checkpoint.", "data.val", "probe.train"),
    *("probe.knn", "probe.every_epochs", "optim.warmup_", "optim.max_skipped_batches"),
)


@bench.command(cls=OneCommand)
def loader(words: Words = None, as_json: AsJson = False) -> None:
    """Measure the loader alone: images per second, and the share of the speed of decoding alone."""
    recipe, typed = read_words("bench loader", words)
    own = take_settings(typed, BenchSettings)
    if typed.get("steps") is not None:
        raise ValueError(f"steps={typed['steps']} would have no effect: set seconds, the time to load.")
    _refuse("loader", [key for key in typed if not key.startswith(_LOADED) or key.startswith(_NOT_LOADED)], typed)
    settings = load_recipe(recipe[0], typed)
    from sslight.api.bench import bench_loader

    speed = bench_loader(settings, seconds=own.seconds)
    show(speed, asdict(speed), _print_loader, as_json=as_json)


@bench.command(cls=OneCommand)
def step(words: Words = None, as_json: AsJson = False) -> None:
    """Measure training steps, loader included: images per second, the parts of a step, and memory."""
    recipe, typed = read_words("bench step", words)
    _refuse("step", [key for key in typed if key.startswith(_NOT_IN_A_STEP)], typed)
    settings = load_recipe(recipe[0], typed)
    from sslight.api.bench import bench_step

    speed = bench_step(settings, steps=typed.get("steps") or 20)
    show(speed, asdict(speed), _print_step, as_json=as_json)


def _refuse(name: str, ineffective: list[str], typed: dict[str, Any]) -> None:
    for key in ineffective:
        raise ValueError(f"{key}={typed[key]} would have no effect on `sslight bench {name}`: leave it out.")


def _print_loader(speed: "LoaderSpeed") -> None:
    parts = (speed.ms_reading, speed.ms_decoding, speed.ms_views)
    facts(
        [
            ("images", f"{speed.images:,} in {speed.seconds:.1f} s, {speed.workers} workers on {speed.cores} cores"),
            ("speed", f"{speed.images_per_second:.0f} images/s, {speed.images_per_second_per_core:.0f} per core"),
            ("of bare decoding", f"{speed.share_of_decoding_limit:.0%}"),
            ("one image", "reading {:.2f} ms, decoding {:.2f} ms, views {:.2f} ms".format(*parts)),
            ("bottleneck", speed.bottleneck),
        ]
    )


def _print_step(speed: "StepSpeed") -> None:
    facts(
        [
            ("device", f"{speed.device}, precision={speed.precision}"),
            ("speed", f"{speed.images_per_second:.0f} images/s, {speed.ms_per_step:.0f} ms per step"),
            *((f"  {name}", f"{ms:.1f} ms, {ms / speed.ms_per_step:.0%}") for name, ms in speed.parts.items()),
            ("peak memory", f"{speed.peak_memory_mib:,.0f} MiB"),
            ("bottleneck", speed.bottleneck),
        ]
    )
