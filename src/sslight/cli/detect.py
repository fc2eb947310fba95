"""``sslight evaluate detect``: object detection and instance segmentation."""

from typing import TYPE_CHECKING

from sslight.cli.terminal import facts, say, show
from sslight.config import DetectSettings, build_detect_settings, parse_assignments

if TYPE_CHECKING:
    from sslight.evaluate import DetectionResult
    from sslight.evaluate.detection.average_precision import AveragePrecision


def detect(checkpoint: str, settings: list[str], *, as_json: bool) -> None:
    """Train a detector on a backbone and print its average precision."""
    resolved = build_detect_settings(checkpoint, parse_assignments(settings, DetectSettings))
    from sslight.api.detect import detect_with

    result = detect_with(resolved)
    if result is not None:  # None in all processes but the first
        show(result, {**result.content, "path": result.path}, _print_result, as_json=as_json)


def _print_result(result: "DetectionResult") -> None:
    data, checkpoint, details = (result.content[name] for name in ("data", "checkpoint", "details"))
    network = "Faster R-CNN" if result.masks is None else "Mask R-CNN"
    train, val = data["train"], data["val"]
    images = f"{train['num_images']:,} training ({train['split']}), {val['num_images']:,} validation ({val['split']})"
    facts(
        [
            ("protocol", f"{network}, {details['total_steps']:,} steps, loss {details['loss']:.3f} at the end"),
            ("backbone", f"{checkpoint['backbone']} ({checkpoint['notes']['weights']})"),
            ("images", f"{images}, {data['num_categories']} categories"),
            ("boxes", as_text(result.boxes)),
            ("masks", None if result.masks is None else as_text(result.masks)),
            ("sample", None if result.sample is None else str(result.sample)),
            ("result", str(result.path)),
        ]
    )
    for note in result.content["notes"]:
        say(f"note: {note}")


def as_text(value: "AveragePrecision") -> str:
    """``AP 32.1 · AP50 51.9 · AP75 34.4 · small 17.0 · medium 34.9 · large 41.9``, in percent; – for none."""
    names = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "small": "small", "medium": "medium", "large": "large"}
    shown = names if value.ap is not None else {"ap50": "AP50 (11 points)"}
    shares = ((label, getattr(value, name)) for name, label in shown.items())
    return " · ".join(f"{label} {'–' if share is None else format(100 * share, '.1f')}" for label, share in shares)
