"""``sslight data``: pack a set of images, or describe it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from shlex import quote
from typing import TYPE_CHECKING, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sslight.cli.failures import beside_the_first
from sslight.cli.grammar import OneCommand, Several, Words
from sslight.cli.terminal import AsJson, columns, facts, say, show
from sslight.config import InspectSettings, PackSettings, image_paths, read_words, take_settings

if TYPE_CHECKING:
    from sslight.data import Inspection, PackResult, Source

data = typer.Typer(cls=Several, no_args_is_help=True, help="Pack a set of images, or describe it.")

_SHOWN_UNREADABLE = 10
_SLOW_MEGAPIXELS = 1.5


@data.command(cls=OneCommand)
def pack(words: Words = None, as_json: AsJson = False) -> None:
    """Write all readable images into one H5 file or into tar shards. The same command continues interrupted shards."""
    images, typed = read_words("data pack", words)
    chosen = take_settings(typed, PackSettings)
    output = chosen.output
    form: Literal["h5", "tar"] = chosen.format or ("h5" if output.suffix.lower() in (".h5", ".hdf5") else "tar")
    if form == "h5" and chosen.shard_images is not None:
        raise ValueError(f"shard_images={chosen.shard_images} would have no effect: format=h5 writes one file")
    from sslight.data import available_cores
    from sslight.data import pack as pack_source
    from sslight.train.machine.devices import own_share

    share = own_share()
    source = _build(images[0], tar_image=chosen.tar_image)
    with beside_the_first(output), _progress("packed") as progress:
        try:
            result = pack_source(
                source,
                output,
                format=form,
                short_side=chosen.short_side,
                shard_images=chosen.shard_images,
                max_pixels=chosen.max_pixels,
                workers=max(1, available_cores() // share.local_count) if chosen.workers is None else chosen.workers,
                task=(share.number, share.count),
                progress=progress,
            )
        except KeyboardInterrupt:
            goes_on = "goes on from here" if form == "tar" else "begins anew"
            say(f"stopped; the same command {goes_on}", stderr=True)
            raise
    if share.number:
        say(f"process {share.number} has ended; the first process finishes {output}", stderr=True)
        return
    show(result, asdict(result), _print_packed, as_json=as_json)


@data.command(cls=OneCommand)
def inspect(words: Words = None, as_json: AsJson = False) -> None:
    """Count images and classes, summarize sizes, formats and color modes, and find unreadable files."""
    images, typed = read_words("data inspect", words)
    chosen = take_settings(typed, InspectSettings)
    from sslight.data import ReadLimits, available_cores, inspect_source

    source = _build(images[0], tar_image=chosen.tar_image)
    with _progress("decoded") as progress:
        found = inspect_source(
            source,
            sample=chosen.sample,
            workers=available_cores() if chosen.workers is None else chosen.workers,
            limits=ReadLimits(chosen.max_pixels),
            progress=progress,
        )
    show(found, asdict(found), lambda found: _print_inspection(found, images[0]), as_json=as_json)


def _build(word: str, *, tar_image: str | None) -> "Source":
    """The images, with their classes if there are any."""
    from sslight.data import build_source

    paths = image_paths(word)
    try:
        return build_source(paths, labeled=True, setting="IMAGES", tar_image=tar_image, in_order=True)
    except ValueError:  # no classes; if there are no images, the second attempt says so
        return build_source(paths, labeled=False, setting="IMAGES", tar_image=tar_image, in_order=True)


@contextmanager
def _progress(verb: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, once there is something to show."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(f"{verb}, {{task.fields[rate]}} images/s"))
    bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
    task = bar.add_task(verb, total=None, rate="–")

    def show(done: int, total: int) -> None:
        bar.start()
        speed = bar.tasks[0].speed
        bar.update(task, completed=done, total=total, rate="–" if speed is None else f"{speed:,.0f}")

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()


def _print_packed(result: "PackResult") -> None:
    left_out = f"{result.num_bad:,} unreadable, listed in {result.bad_images_file}"
    facts(
        [
            ("images", f"{result.num_images:,}, {result.num_reencoded:,} of them made smaller"),
            ("classes", "none" if result.num_classes is None else f"{result.num_classes:,}"),
            ("bytes", f"{result.num_bytes / 1e6:,.1f} MB of images"),
            ("left out", left_out if result.num_bad else None),
            ("output", f"{result.output}   ({quote(f'data.train={result.output}')})"),
        ]
    )


def _print_inspection(found: "Inspection", source: str) -> None:
    from sslight.data import passed_over_in_words

    classes = "none"
    if sizes := found.images_a_class:
        smallest, largest, median = (f"{sizes[name]:,}" for name in ("smallest", "largest", "median"))
        classes = f"{found.num_classes:,} of {smallest} to {largest} images, median {median}"
    decoded = f"{found.num_inspected:,}, evenly spread; what follows is of these"
    facts(
        [
            ("images", f"{found.num_images:,}"),
            ("decoded", decoded if found.num_inspected < found.num_images else None),
            ("classes", classes),
            ("bytes", f"{found.num_bytes / 1e6:,.1f} MB"),
            ("formats", _counts(found.formats)),
            ("modes", _counts(found.modes)),
            ("EXIF-rotated", f"{found.num_rotated:,}"),
            ("unreadable", f"{len(found.unreadable):,}"),
            ("skipped", passed_over_in_words(found.passed_over).removeprefix("skipped: ") or "nothing"),
            ("masks", found.masks or None),
        ]
    )
    if found.distributions:
        rows = [
            (name, *(f"{value:,.2f}" if name == "megapixels" else f"{value:,}" for value in quantiles.values()))
            for name, quantiles in found.distributions.items()
        ]
        say()
        say(columns(("", *next(iter(found.distributions.values()))), rows, numbers=True))
    for image in found.unreadable[:_SHOWN_UNREADABLE]:
        say(f"unreadable: {image.location} ({image.reason})")
    if len(found.unreadable) > _SHOWN_UNREADABLE:
        say(f"… and {len(found.unreadable) - _SHOWN_UNREADABLE:,} more; --json lists all")
    if found.distributions:
        images = quote(source)
        say()
        if found.distributions["megapixels"]["median"] > _SLOW_MEGAPIXELS:
            say(f"smaller copies are read faster:  sslight data pack {images} output=SHARDS short_side=512")
        say(f"settings that fit these images:  sslight pretrain auto {quote(f'data.train={source}')} output=runs/first")


def _counts(counts: dict[str, int]) -> str:
    return " · ".join(f"{name} {count:,}" for name, count in counts.items())
