"""``sslight evaluate``: measure a backbone by the field's protocols."""

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from sslight.cli.grammar import Words
from sslight.cli.terminal import AsJson, facts, say, show
from sslight.config import DetectSettings, EvaluateSettings, build, read_words
from sslight.config.schema.evaluate_settings import PROTOCOLS

if TYPE_CHECKING:
    from sslight.evaluate import DetectionResult, EvaluationResult
    from sslight.evaluate.classifiers.metrics import Accuracy
    from sslight.evaluate.detection.average_precision import AveragePrecision


def evaluate(words: Words = None, as_json: AsJson = False) -> None:
    """Measure a backbone: kNN, linear classification, fine-tuning with few labels, or object detection."""
    is_detection = (words or [""])[0] == "detect"
    (protocol, checkpoint), typed = read_words("evaluate detect" if is_detection else "evaluate", words)
    if protocol == "detect":
        _detect(build(DetectSettings, typed, model=checkpoint), as_json=as_json)
        return
    if protocol not in PROTOCOLS:
        near = get_close_matches(protocol, (*PROTOCOLS, "detect"), n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose {', '.join(PROTOCOLS)} or detect."
        raise ValueError(f"{protocol} is not a protocol: {hint}")
    resolved = build(EvaluateSettings, typed, protocol=protocol, model=checkpoint)
    from sslight.api.evaluate import evaluate_with

    result = evaluate_with(resolved)
    if result is not None:  # None in all processes but the first
        show(result, {**result.content, "path": result.path}, _print_result, as_json=as_json)


def _print_result(result: "EvaluationResult") -> None:
    content = result.content
    data, checkpoint = content["data"], content["checkpoint"]
    counts = f"{data['train']['num_images']:,} training, {data['val']['num_images']:,} validation"
    worst = sorted(result.accuracy.per_class.items(), key=lambda item: item[1][0])
    (low_name, (low, *_)), (high_name, (high, *_)) = worst[0], worst[-1]
    accuracies = {f"k = {k}": value for k, value in result.by_k.items()} or {"accuracy": result.accuracy}
    facts(
        [
            ("protocol", f"{result.protocol}{_decided(content['details'])}"),
            ("backbone", f"{checkpoint['backbone']} ({checkpoint['notes']['weights']})"),
            ("images", f"{counts}, {data['train']['num_classes']} classes, {content['transform']['image_size']} px"),
            *((name, as_text(accuracy)) for name, accuracy in accuracies.items()),
            ("classes", f"from {low:.0f} % ({low_name}) to {high:.0f} % ({high_name})"),
            ("time", f"{content['seconds']:.1f} s, {content['peak_memory_mib']['host']:,} MiB"),
            ("result", str(result.path)),
        ]
    )
    _say_notes(result.notes)


def _decided(details: dict[str, Any]) -> str:
    shown = ("optimizer", "epochs", "lr", "batch_size", "head", "l2", "last_blocks")
    words = [f"{key}={value}" for key in shown if (value := details.get(key)) is not None]
    return f" ({', '.join(words)})" if words else ""


def as_text(accuracy: "Accuracy") -> str:
    """``top-1 61.2 % [60.1, 62.3] · top-5 84.0 %``."""
    low, high = accuracy.top1_interval
    text = f"top-1 {accuracy.top1:.1f} % [{low:.1f}, {high:.1f}]"
    return text if accuracy.top5 is None else f"{text} · top-5 {accuracy.top5:.1f} %"


def _say_notes(notes: list[str]) -> None:
    for note in notes:
        say(f"note: {note}")


def _detect(settings: DetectSettings, *, as_json: bool) -> None:
    """Train a detector on a backbone and print its average precision."""
    from sslight.api.detect import detect_with

    result = detect_with(settings)
    if result is not None:  # None in all processes but the first
        show(result, {**result.content, "path": result.path}, _print_detection, as_json=as_json)


def _print_detection(result: "DetectionResult") -> None:
    data, checkpoint, details = (result.content[name] for name in ("data", "checkpoint", "details"))
    network = "Faster R-CNN" if result.masks is None else "Mask R-CNN"
    train, val = data["train"], data["val"]
    images = f"{train['num_images']:,} training ({train['split']}), {val['num_images']:,} validation ({val['split']})"
    facts(
        [
            ("protocol", f"{network}, {details['total_steps']:,} steps, loss {details['loss']:.3f} at the end"),
            ("backbone", f"{checkpoint['backbone']} ({checkpoint['notes']['weights']})"),
            ("images", f"{images}, {data['num_categories']} categories"),
            ("boxes", _precisions(result.boxes)),
            ("masks", None if result.masks is None else _precisions(result.masks)),
            ("sample", None if result.sample is None else str(result.sample)),
            ("result", str(result.path)),
        ]
    )
    _say_notes(result.content["notes"])


def _precisions(value: "AveragePrecision") -> str:
    """``AP 32.1 · AP50 51.9 · AP75 34.4 · small 17.0 · medium 34.9 · large 41.9``, in percent; – if undefined."""
    names = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "small": "small", "medium": "medium", "large": "large"}
    shown = names if value.ap is not None else {"ap50": "AP50 (11 points)"}
    shares = ((label, getattr(value, name)) for name, label in shown.items())
    return " · ".join(f"{label} {'–' if share is None else format(100 * share, '.1f')}" for label, share in shares)
