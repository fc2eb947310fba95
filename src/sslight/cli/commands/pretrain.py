"""``sslight pretrain``: pre-train a backbone."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sslight.cli.commands.plan import print_plan
from sslight.cli.grammar import Words
from sslight.cli.terminal import AsJson, facts, say, show
from sslight.config import (
    AutoSettings,
    PretrainSettings,
    build_settings,
    load_recipe,
    parse_assignments,
    read_words,
    take_settings,
    translate_original,
)

if TYPE_CHECKING:
    from sslight.api.pretrain import PretrainResult


_SHOWN_REASONS = 3


def pretrain(
    words: Words = None,
    cfg: Annotated[
        Path | None,
        typer.Option(
            "--cfg",
            metavar="FILE",
            help="A configuration of the original implementation, instead of a recipe; then KEY VALUE pairs.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pre-train a backbone on images without labels, and export it."""
    resolved = _from_recipe(words) if cfg is None else _from_original(cfg, words or [])
    from lightning_fabric.utilities.rank_zero import rank_zero_only
    from torch import distributed

    from sslight.api.pretrain import report_pages, run_pretraining

    result = run_pretraining(resolved)
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        alone = not distributed.is_initialized()  # several processes would compute the features together
        pages = report_pages(result.output, images=400 if alone else 0)
        in_words = partial(_print_result, pages=pages, beginning=resolved.beginning)
        show(result, asdict(result) | {"report": pages}, in_words, as_json=as_json)


def _from_recipe(words: list[str] | None) -> PretrainSettings:
    (recipe,), given = read_words("pretrain", words)
    hours = take_settings(given, AutoSettings).hours
    if recipe == "auto":
        return _planned(given, hours)
    if hours is not None:
        raise ValueError(
            f"hours={hours:g} works with auto, which chooses the length; {recipe} has its own: set epochs."
        )
    return load_recipe(recipe, given)


def _planned(given: dict[str, Any], hours: float | None) -> PretrainSettings:
    if "output" not in given:
        raise ValueError("output is not set: give a folder for this run, such as output=runs/first.")
    from sslight.api.plan import auto_settings

    say("looking at the images, and timing a few steps", stderr=True)
    settings, plan = auto_settings(given, hours)
    if plan is not None:
        print_plan(plan, stderr=True)
    return settings


def _from_original(path: Path, words: list[str]) -> PretrainSettings:
    """Settings from the original's file and pairs; ``key=value`` words are this program's and override them."""
    translation = translate_original(path.expanduser(), [word for word in words if "=" not in word])
    overrides = parse_assignments(word for word in words if "=" in word)
    settings = build_settings(translation.settings, overrides)
    say(f"{path} became these settings:", stderr=True)
    for key, value in (translation.settings | overrides).items():
        say(f"  {key}={json.dumps(value)}", stderr=True)
    for note in translation.notes:
        say(note, stderr=True)
    return settings


def _unreadable(result: "PretrainResult") -> str:
    """``3 images, replaced by others (2 × the file is empty, 1 × ...), listed in runs/first/bad_images.csv``."""
    reasons = [f"{count:,} × {reason}" for reason, count in list(result.unreadable.items())[:_SHOWN_REASONS]]
    more = ["others"] if len(result.unreadable) > _SHOWN_REASONS else []
    number = sum(result.unreadable.values())
    return (
        f"{number:,} image{'s' if number > 1 else ''}, replaced by others ({'; '.join(reasons + more)}), "
        f"listed in {result.output / 'bad_images.csv'}"
    )


def _print_result(result: "PretrainResult", *, pages: Sequence[Path], beginning: str) -> None:
    from sslight.train import duration

    training = result.training
    speed = f"{training.images_per_second:.0f} images/s, waiting for data {training.data_wait_share:.0%}"
    rows = [("images", f"{result.num_images:,}")]
    rows += [("unreadable", _unreadable(result))] if result.unreadable else []
    rows += [("steps", f"{training.steps:,} in {duration(training.seconds)}"), ("speed", speed)]
    rows += [("loss", f"{training.metrics['loss']:.4f}")]
    if training.measurements:
        first, last = training.measurements[0], training.measurements[-1]
        for name, label in (("knn_top1", "kNN accuracy"), ("linear_top1", "linear accuracy")):
            rows += [(label, f"{beginning} {first[name]:.1f} %  →  pre-trained {last[name]:.1f} %")]
        rows += [("", f"({result.protocol})")]
    rows += [("report", f"{page} (curves, health, and nearest neighbors before and after)") for page in pages]
    facts([*rows, ("backbone", str(result.backbone))])
    say(
        "\nUse it in Python:\n"
        "  import sslight\n"
        f'  backbone = sslight.load_backbone("{result.backbone}")  # a timm module in eval mode\n'
        f"  features = backbone(images)  # float [B, 3, H, W], normalized → [B, {result.num_features}]"
    )
