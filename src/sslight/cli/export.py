"""``sslight export``: a backbone as files for other programs and devices."""

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from sslight.config import ExportSettings, build_export_settings, parse_assignments

if TYPE_CHECKING:
    from sslight.export import ExportedFile, ExportResult


def export(
    checkpoint: Annotated[
        str,
        typer.Argument(help="A run folder, an export or a checkpoint (also of the original).", show_default=False),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE...",
            help="data.check=IMAGES · format=onnx, or [safetensors, torchvision, onnx, onnx-int8, executorch] · "
            "output=DIR · data.calibration=IMAGES · classifier=DIR and others (`sslight config export`).",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print export.json on standard output.")] = False,
) -> None:
    """Write a backbone for timm, torchvision, ONNX Runtime or ExecuTorch, checked on real images and measured."""
    if "=" in checkpoint:
        raise ValueError(f"{checkpoint} stands where the checkpoint belongs: sslight export CHECKPOINT data.check=...")
    resolved = build_export_settings(checkpoint, parse_assignments(settings or [], ExportSettings))
    from sslight.api.export import export_with

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    result = export_with(resolved, say=lambda line: console.print(line, markup=False))
    if as_json:
        print(json.dumps({**result.content, "path": str(result.path)}))
    else:
        _print_result(result)


def _print_result(result: "ExportResult") -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.width = max(console.width, 110)  # a narrow window may wrap the table, but no figure is cut off
    pytorch = result.files[0]
    table = Table(box=None, pad_edge=False)
    for column in ("file", "MB", "cosine", "largest diff.", "kNN", *_latency_columns(pytorch)):
        table.add_column(column, justify="left" if column == "file" else "right", no_wrap=True)
    for file in result.files:
        table.add_row(*_row(file))
    latency = [f"{ms:.1f}" for ms in pytorch.pytorch_latency_ms.values()]
    table.add_row("(PyTorch, float32)", "", "", "", "", *latency)
    console.print(table, markup=False)
    preprocessing, check = result.content["preprocessing"], result.content["check"]
    console.print(
        f"input of ONNX and ExecuTorch files: {preprocessing['dtype']} {preprocessing['shape']}; compared on "
        f"{check['num_images']} images; latency of one image, median, on {result.content['device']['processor']}",
        markup=False,
    )
    console.print(f"written to {result.path}", markup=False)


def _latency_columns(file: "ExportedFile") -> list[str]:
    return [f"ms, {threads} thread{'s' if threads > 1 else ''}" for threads in file.latency_ms]


def _row(file: "ExportedFile") -> list[str]:
    found = file.agreement
    same = found.same_neighbor if found.same_knn_class is None else found.same_knn_class
    return [
        file.path.name,
        f"{file.num_bytes / 1e6:.1f}",
        f"{found.cosine_mean:.5f}",
        f"{found.largest_difference:.2g}",
        f"{same:.1%}",
        *(f"{ms:.1f}" for ms in file.latency_ms.values()),
    ]
