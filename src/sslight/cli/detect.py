"""``sslight evaluate detect``: object detection and instance segmentation."""

import json
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from sslight.config import DetectSettings, build_detect_settings, parse_assignments

if TYPE_CHECKING:
    from sslight.evaluate import DetectionResult
    from sslight.evaluate.detection import AveragePrecision


def detect(checkpoint: str, settings: list[str], *, as_json: bool) -> None:
    """Train a detector on a backbone and print its average precision."""
    resolved = build_detect_settings(checkpoint, parse_assignments(settings, DetectSettings))
    from sslight.api.detect import detect_with

    result = detect_with(resolved)
    if result is None:  # another process than the first
        return
    if as_json:
        print(json.dumps({**result.content, "path": str(result.path)}))
    else:
        _print_result(result)


def _print_result(result: "DetectionResult") -> None:
    console = Console(soft_wrap=True, highlight=False)
    data, checkpoint, details = (result.content[name] for name in ("data", "checkpoint", "details"))
    table = Table(box=None, pad_edge=False, show_header=False)
    network = "Faster R-CNN" if result.masks is None else "Mask R-CNN"
    table.add_row("protocol", f"{network}, {details['total_steps']:,} steps, loss {details['loss']:.3f} at the end")
    table.add_row("backbone", f"{checkpoint['backbone']} ({checkpoint['notes']['weights']})")
    table.add_row(
        "images",
        f"{data['train']['num_images']:,} training ({data['train']['split']}), {data['val']['num_images']:,} "
        f"validation ({data['val']['split']}), {data['num_categories']} categories",
    )
    table.add_row("boxes", as_text(result.boxes))
    if result.masks is not None:
        table.add_row("masks", as_text(result.masks))
    if result.sample is not None:
        table.add_row("sample", str(result.sample))
    table.add_row("result", str(result.path))
    console.print(table, markup=False)
    for note in result.content["notes"]:
        console.print(f"note: {note}", markup=False)


def as_text(value: "AveragePrecision") -> str:
    """``AP 32.1 · AP50 51.9 · AP75 34.4 · small 17.0 · medium 34.9 · large 41.9``, in percent; – for none."""
    names = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "small": "small", "medium": "medium", "large": "large"}
    shown = names if value.ap is not None else {"ap50": "AP50 (11 points)"}
    shares = {label: getattr(value, name) for name, label in shown.items()}
    return " · ".join(
        f"{label} {'–' if share is None else format(100 * share, '.1f')}" for label, share in shares.items()
    )
