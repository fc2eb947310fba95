"""``sslight plan``, and the table that ``sslight pretrain auto`` prints first."""

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING

from sslight.cli.grammar import Words
from sslight.cli.terminal import AsJson, as_typed, columns, facts, say, show
from sslight.config import PlanSettings, image_paths, is_setting, read_words, take_settings, to_yaml
from sslight.files import check_new, write_whole

if TYPE_CHECKING:
    from sslight.pretraining.planner import Plan


def plan(words: Words = None, as_json: AsJson = False) -> None:
    """Choose settings for your images, this machine and your time, with reasons, memory and duration. Runs nothing."""
    images, given = read_words("plan", words)
    own = take_settings(given, PlanSettings)
    if "data.train" in given:
        raise ValueError(f"data.train={given['data.train']} and {images[0]} are both given: keep one.")
    if own.save is not None:
        check_new(own.save, "save")
    from sslight.api.plan import plan as find_plan

    say("looking at the images, and timing a few steps", stderr=True)
    found = find_plan(given | {"data.train": image_paths(images[0])}, hours=own.hours)
    content = asdict(found) | {"settings": found.settings.model_dump(mode="json")}
    show(found, content, print_plan, as_json=as_json)
    if own.save is not None:
        write_whole(own.save, to_yaml(found.settings))
    if not as_json:
        left = [word for word in words or [] if is_setting(word) and not word.startswith(("output=", "save="))]
        output = found.settings.output or "runs/first"
        first = ["sslight", "pretrain", "auto", f"data.train={images[0]}", f"output={output}"]
        say("\nto run it:  " + shlex.join([*first, *left]))


def print_plan(found: "Plan", *, stderr: bool = False) -> None:
    """Print the facts, the choices and the suggestions."""
    from sslight.train import duration

    images, machine, settings = found.images, found.machine, found.settings
    kind = "gray" if images.is_gray else "color"
    processes = f"{machine.processes} × " if machine.processes > 1 else ""
    length = f"{settings.epochs:,} epochs" if settings.epochs else f"{settings.steps:,} steps"
    facts(
        [
            ("images", f"{images.num_images:,} in {kind}, {images.short_side} px on the shorter side (median)"),
            ("machine", f"{processes}{machine.name}, {machine.cores} cores, {machine.memory / 2**30:,.1f} GiB free"),
            ("memory", f"{found.memory / 2**30:,.1f} GiB, as counted from small batches"),
            ("time", f"{duration(found.seconds)} for {length}: {found.images_per_second:,.0f} images/s, as timed now"),
        ],
        stderr=stderr,
    )
    say(stderr=stderr)
    rows = [(choice.setting, as_typed(choice.value).replace(" ", ""), choice.because) for choice in found.choices]
    say(columns(("setting", "value", "because"), rows), stderr=stderr)
    for note in found.notes:
        say(f"\nnote: {note}.", stderr=stderr)
