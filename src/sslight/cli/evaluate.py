"""``sslight evaluate``: a backbone measured by the field's protocols."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sslight.cli.detect import detect
from sslight.config import EvaluateSettings, build_evaluate_settings, parse_assignments

if TYPE_CHECKING:
    from sslight.evaluate import Accuracy, EvaluationResult


def evaluate(
    protocol: Annotated[str, typer.Argument(help="knn, linear, semi or detect.", show_default=False)],
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="An export, a checkpoint (of this program or the original), timm:NAME or timm:NAME@FILE.",
            show_default=False,
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE...",
            help="data.train=..., data.val=... and others (`sslight config evaluate`); for detect data=... and "
            "others (`sslight config detect`).",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
) -> None:
    """Measure a backbone: kNN, linear classification, fine-tuning with few labels, or object detection."""
    for word in (protocol, checkpoint):
        if "=" in word.split("@")[0]:
            raise ValueError(
                f"{word} stands where the protocol and the checkpoint belong: sslight evaluate knn CHECKPOINT "
                f"data.train=... data.val=..."
            )
    if protocol == "detect":
        detect(checkpoint, settings or [], as_json=as_json)
        return
    resolved = build_evaluate_settings(protocol, checkpoint, parse_assignments(settings or [], EvaluateSettings))
    from sslight.api.evaluate import evaluate_with

    result = evaluate_with(resolved)
    if result is None:  # another process than the first
        return
    if as_json:
        print(json.dumps({**result.content, "path": str(result.path)}))
    else:
        _print_result(result)


def _print_result(result: "EvaluationResult") -> None:
    console = Console(soft_wrap=True, highlight=False)
    content = result.content
    data, checkpoint = content["data"], content["checkpoint"]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("protocol", f"{result.protocol}{_decided(content['details'])}")
    table.add_row("backbone", f"{checkpoint['backbone']} ({checkpoint['notes']['weights']})")
    table.add_row(
        "images",
        f"{data['train']['num_images']:,} training, {data['val']['num_images']:,} validation, "
        f"{data['train']['num_classes']} classes, {content['transform']['image_size']} px",
    )
    for name, accuracy in (
        [(f"k = {k}", value) for k, value in result.by_k.items()] if result.by_k else [("accuracy", result.accuracy)]
    ):
        table.add_row(name, as_text(accuracy))
    worst = sorted(result.accuracy.per_class.items(), key=lambda item: item[1][0])
    table.add_row(
        "classes",
        f"from {worst[0][1][0]:.0f} % ({worst[0][0]}) to {worst[-1][1][0]:.0f} % ({worst[-1][0]})",
    )
    table.add_row("time", f"{content['seconds']:.1f} s, {content['peak_memory_mib']['host']:,} MiB")
    table.add_row("result", str(result.path))
    console.print(table, markup=False)
    for note in result.notes:
        console.print(f"note: {note}", markup=False)


def _decided(details: dict[str, Any]) -> str:
    shown = {
        key: details[key] for key in ("optimizer", "lr", "batch_size", "head", "l2", "last_blocks") if key in details
    }
    words = [f"{key}={value}" for key, value in shown.items() if value is not None]
    return f" ({', '.join(words)})" if words else ""


def as_text(accuracy: "Accuracy") -> str:
    """``top-1 61.2 % [60.1, 62.3] · top-5 84.0 %``."""
    low, high = accuracy.top1_interval
    text = f"top-1 {accuracy.top1:.1f} % [{low:.1f}, {high:.1f}]"
    return text if accuracy.top5 is None else f"{text} · top-5 {accuracy.top5:.1f} %"
