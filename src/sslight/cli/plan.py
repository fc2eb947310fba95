"""``sslight plan``, and the table that ``sslight pretrain auto`` prints first."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sslight.cli.terminal import AsJson, columns, facts, say, show
from sslight.config import to_yaml
from sslight.config.fields import PositiveFloat, Section
from sslight.config.overrides import build, flatten, parse_words
from sslight.files import check_new, write_whole

if TYPE_CHECKING:
    from sslight.api.plan import Plan


class _Hours(Section):
    hours: PositiveFloat | None = None
    explained_by = "sslight plan --help"


def plan(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Images: whatever data.train takes.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="hours=H · any setting of `sslight config`, which then stays as you set it.",
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the settings to this YAML file, which `sslight pretrain` takes.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find settings for your images, this machine and your time, with the reasons, memory and duration; run nothing."""
    given, hours = with_hours([f"data.train={data}", *(settings or [])])
    if save is not None:
        check_new(save, "--save")
    from sslight.api.plan import plan as find_plan

    say("looking at the images, and timing a few steps", stderr=True)
    found = find_plan(given, hours=hours)
    content = asdict(found) | {"settings": found.settings.model_dump(mode="json")}
    show(found, content, print_plan, as_json=as_json)
    if save is not None:
        write_whole(save, to_yaml(found.settings))
    if not as_json:
        words = " ".join(word for word in settings or [] if not word.startswith("output="))
        output = found.settings.output or "runs/first"
        say(f"\nto run it:  sslight pretrain auto data.train={data} output={output} {words}".rstrip())


def with_hours(words: Sequence[str]) -> tuple[dict[str, Any], float | None]:
    """Settings typed as ``key=value``, and ``hours`` among them. Raises ValueError."""
    from sslight.config import PretrainSettings

    typed = parse_words(words, PretrainSettings, _Hours)
    hours = build(_Hours, {"hours": typed.pop("hours")}).hours if "hours" in typed else None
    return flatten(typed), hours


def print_plan(found: "Plan", *, stderr: bool = False) -> None:
    """The facts, the choices, and what would help."""
    from sslight.train import duration

    images, machine, settings = found.images, found.machine, found.settings
    kind = "gray" if images.is_gray else "color"
    processes = f"{machine.processes} × " if machine.processes > 1 else ""
    length = f"{settings.epochs:,} epochs" if settings.epochs else f"{settings.steps:,} steps"
    facts(
        [
            ("images", f"{images.num_images:,} in {kind}, {images.short_side} px on the shorter side (median)"),
            ("machine", f"{processes}{machine.name}, {machine.cores} cores, {machine.memory / 2**30:,.1f} GiB free"),
            ("memory", f"{found.memory / 2**30:,.1f} GiB at most, as counted from small batches"),
            ("time", f"{duration(found.seconds)} for {length}: {found.images_per_second:,.0f} images/s, as timed now"),
        ],
        stderr=stderr,
    )
    say(stderr=stderr)
    rows = [(choice.setting, _as_typed(choice.value), choice.because) for choice in found.choices]
    say(columns(("setting", "value", "because"), rows), stderr=stderr)
    for note in found.notes:
        say(f"\nnote: {note}.", stderr=stderr)


def _as_typed(value: object) -> str:
    return str(value).replace(" ", "").replace("False", "false").replace("True", "true").strip("'")
