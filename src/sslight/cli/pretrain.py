"""``sslight pretrain``: the main job."""

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from sslight.config import load_recipe, parse_assignments

if TYPE_CHECKING:
    from sslight.api import PretrainResult


def pretrain(
    recipe: Annotated[str, typer.Argument(help="A recipe (see `sslight recipes`) or the path of a YAML file.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings that differ from the recipe (see `sslight config`)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
) -> None:
    """Pre-train a backbone on images without labels, and export it."""
    resolved = load_recipe(recipe, parse_assignments(settings or []))
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    from sslight.api import run_pretraining

    result = run_pretraining(resolved)
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        return
    if as_json:
        print(json.dumps(dataclasses.asdict(result), default=str))
    else:
        _print_result(result)


def _print_result(result: "PretrainResult") -> None:
    from sslight.train import duration

    training = result.training
    console = Console(soft_wrap=True, highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("images", f"{result.num_images:,}")
    table.add_row("steps", f"{training.steps:,} in {duration(training.seconds)}")
    table.add_row(
        "speed", f"{training.images_per_second:.0f} images/s, waiting for data {training.data_wait_share:.0%}"
    )
    table.add_row("loss", f"{training.metrics['loss']:.4f}")
    if training.measurements:
        first, last = training.measurements[0], training.measurements[-1]
        for name, label in (("knn_top1", "kNN accuracy"), ("linear_top1", "linear accuracy")):
            table.add_row(label, f"untrained {first[name]:.1f} %  →  pre-trained {last[name]:.1f} %")
        table.add_row("", f"({result.protocol})")
    table.add_row("backbone", str(result.backbone))
    console.print(table, markup=False)
    console.print(
        "\nUse it in Python:\n"
        "  import sslight\n"
        f'  backbone = sslight.load_backbone("{result.backbone}")  # a timm module in eval mode\n'
        f"  features = backbone(images)  # float [B, 3, H, W], normalised → [B, {result.num_features}]",
        markup=False,
    )
