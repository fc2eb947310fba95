"""``sslight pretrain``: the main job."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sslight.cli.plan import print_plan, with_hours
from sslight.cli.terminal import AsJson, facts, say, show
from sslight.config import PretrainSettings, build_settings, load_recipe, parse_assignments, translate_original

if TYPE_CHECKING:
    from sslight.api.pretrain import PretrainResult


_SHOWN_REASONS = 3


def pretrain(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="auto (settings for your images, machine and hours=H), a recipe (see `sslight recipes`), or a YAML "
            "file.",
            show_default=False,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings that differ from the recipe (see `sslight config`)."),
    ] = None,
    cfg: Annotated[
        Path | None,
        typer.Option(help="A configuration of the original implementation, instead of a recipe; then KEY VALUE pairs."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pre-train a backbone on images without labels, and export it."""
    words = [word for word in (recipe, *(settings or [])) if word is not None]
    resolved = _from_recipe(words) if cfg is None else _from_original(cfg, words)
    from lightning_fabric.utilities.rank_zero import rank_zero_only
    from torch import distributed

    from sslight.api.pretrain import report_pages, run_pretraining

    result = run_pretraining(resolved)
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        alone = not distributed.is_initialized()  # several processes would compute the features together
        pages = report_pages(result.output, images=400 if alone else 0)
        show(result, asdict(result) | {"report": pages}, partial(_print_result, pages=pages), as_json=as_json)


def _from_recipe(words: list[str]) -> PretrainSettings:
    if not words or "=" in words[0]:
        raise ValueError("no recipe given: begin with auto, or with one that `sslight recipes` lists.")
    if words[0] == "auto":
        return _planned(words[1:])
    if timed := next((word for word in words if word.startswith("hours=")), None):
        raise ValueError(f"{timed} is for auto, which finds the epochs; {words[0]} has its own: set epochs.")
    return load_recipe(words[0], parse_assignments(words[1:]))


def _planned(words: list[str]) -> PretrainSettings:
    given, hours = with_hours(words)
    if "output" not in given:
        raise ValueError("output is not set: give the folder of this run, such as output=runs/first.")
    from sslight.api.plan import auto_settings

    say("looking at the images, and timing a few steps", stderr=True)
    settings, plan = auto_settings(given, hours)
    if plan is not None:
        print_plan(plan, stderr=True)
    return settings


def _from_original(path: Path, words: list[str]) -> PretrainSettings:
    """Settings from the original's file and pairs; ``key=value`` words are of this program and come last."""
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


def _print_result(result: "PretrainResult", pages: Sequence[Path]) -> None:
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
            rows += [(label, f"untrained {first[name]:.1f} %  →  pre-trained {last[name]:.1f} %")]
        rows += [("", f"({result.protocol})")]
    rows += [("report", f"{page} (curves, health, and nearest neighbours before and after)") for page in pages]
    facts([*rows, ("backbone", str(result.backbone))])
    say(
        "\nUse it in Python:\n"
        "  import sslight\n"
        f'  backbone = sslight.load_backbone("{result.backbone}")  # a timm module in eval mode\n'
        f"  features = backbone(images)  # float [B, 3, H, W], normalised → [B, {result.num_features}]"
    )
