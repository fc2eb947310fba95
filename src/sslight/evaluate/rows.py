"""What results say, a row for each: beside the published ones of the same network, never mixed up with them."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, TypeVar

from sslight.backbones import ALIASES, is_public
from sslight.config.schema.fields import is_new_network

_Kind = TypeVar("_Kind")
_Row = TypeVar("_Row")

Content = Mapping[str, Any]
"""What a ``results.json`` holds."""


@dataclass(frozen=True)
class Row:
    """A line of the comparison: ``origin`` tells a measurement of this program from a published number."""

    origin: Literal["measured", "published"]
    backbone: str
    weights: str
    protocol: str
    data: str
    top1: float
    top1_interval: tuple[float, float] | None = None
    top5: float | None = None


@dataclass(frozen=True)
class DetectionRow:
    """The same of a detection result, in percent."""

    origin: Literal["measured", "published"]
    backbone: str
    weights: str
    data: str
    box_ap: float | None
    box_ap50: float | None
    mask_ap: float | None
    mask_ap50: float | None


@dataclass(frozen=True)
class LabelRow:
    """The same of labels that do not exclude each other: their mean average precision, in percent."""

    origin: Literal["measured"]
    backbone: str
    weights: str
    protocol: str
    data: str
    map: float
    map_interval: tuple[float, float]


def is_multi_label(content: Content) -> bool:
    """Whether a result is of labels that do not exclude each other."""
    return "map" in (content.get("accuracy") or {})


def compare_results(results: Sequence[Content]) -> list[Row]:
    """A row for each result, each kind followed by the published rows for it; sets that differ have letters."""

    def published(kind: tuple[str, str, float | None]) -> list[Row]:
        backbone, protocol, labels = kind
        named = "linear (published)" if labels is None else f"{protocol}, {_percent(labels)}"
        return [
            Row("published", backbone, row["method"], named, "ImageNet-1k at 224 px", row["top1"])
            for row in published_content()["rows"]
            if (row["backbone"], row["protocol"], row["labels"]) == kind
        ]

    letters = _letters(results)
    kinds = [(paper_name(one["checkpoint"]["backbone"]), one["protocol"].split()[0], _labels(one)) for one in results]
    return _by_kind(kinds, map(_measured, results, letters), published)


def compare_multi_label(results: Sequence[Content]) -> list[LabelRow]:
    """A row for each result of labels that do not exclude each other; nothing published compares."""
    rows = []
    for content, letter in zip(results, _letters(results), strict=True):
        low, high = content["accuracy"]["map_interval"]
        facts, figure = _facts(content, letter), float(content["accuracy"]["map"])
        rows.append(LabelRow(origin="measured", map=figure, map_interval=(float(low), float(high)), **facts))
    return rows


def compare_detections(results: Sequence[Content]) -> list[DetectionRow]:
    """The same of detection results."""

    def published(backbone: str) -> list[DetectionRow]:
        known = published_content()["detection"]
        return [
            DetectionRow("published", backbone, row["method"], known["data"], row["box_ap"], None, row["mask_ap"], None)
            for row in known["rows"]
            if row["backbone"] == backbone
        ]

    letters = _letters(results)
    backbones = [paper_name(str(content["checkpoint"]["backbone"])) for content in results]
    return _by_kind(backbones, map(_measured_detection, results, letters), published)


def _by_kind(kinds: Iterable[_Kind], rows: Iterable[_Row], published: Callable[[_Kind], list[_Row]]) -> list[_Row]:
    """The measured rows of each kind and its published ones, kinds as they first come."""
    measured: dict[_Kind, list[_Row]] = {}
    for kind, row in zip(kinds, rows, strict=True):
        measured.setdefault(kind, []).append(row)
    return [row for kind, of_kind in measured.items() for row in [*of_kind, *published(kind)]]


def published_note(*, classified: bool = True) -> str:
    """What the published rows are, for the foot of a table of classification (or of detection) results."""
    content = published_content()
    note = f"by the authors ({content['source']}), not measured here"
    if not classified:
        return f"{note}."
    return (
        f"{note}; {content['data']}. They are only comparable with results of the published protocol on the same data."
    )


def _letters(results: Sequence[Content]) -> list[str]:
    """For each result, which of the sets it is of, where there are several; sets are known by their fingerprints."""
    sets = [
        json.dumps([data[part].get("sha256") or data[part] for part in ("train", "val")], sort_keys=True, default=str)
        for data in (content["data"] for content in results)
    ]
    different = list(dict.fromkeys(sets))
    return [f", set {chr(65 + different.index(each) % 26)}" if len(different) > 1 else "" for each in sets]


def _measured(content: Content, letter: str) -> Row:
    accuracy = content["accuracy"]
    low, high = accuracy["top1_interval"]
    return Row(
        origin="measured",
        **_facts(content, letter),
        top1=float(accuracy["top1"]),
        top1_interval=(float(low), float(high)),
        top5=None if accuracy["top5"] is None else float(accuracy["top5"]),
    )


def _facts(content: Content, letter: str) -> dict[str, str]:
    """What was measured, how and on what."""
    checkpoint, data, details = (content[key] for key in ("checkpoint", "data", "details"))
    protocol = protocol_of(content)
    if "lr" in details:
        tried = details.get("lr_tried", ())
        chosen = f", best of {len(tried)} on held-out training images" if len(tried) > 1 else ""
        protocol += f", rate {details['lr']:g}{chosen}, batch {details['batch_size']:,}"
    network = checkpoint.get("network")
    named = is_new_network(checkpoint["path"]) or is_public(checkpoint["path"])
    if network and not named and (network != "student" or "lr" in details):
        protocol += f", {network}"
    return {
        "backbone": str(checkpoint["backbone"]),
        "weights": weights_of(content),
        "protocol": protocol,
        "data": f"{data['train']['num_images']:,} + {data['val']['num_images']:,} images at "
        f"{content['transform']['image_size']} px{letter}",
    }


def weights_of(content: Content) -> str:
    """What was measured, by the path of its weights; a fine-tuned classifier by its run and what it started from."""
    path, output = str(content["checkpoint"]["path"]), content.get("settings", {}).get("output")
    return f"{output} (from {path})" if content["protocol"].startswith("finetune") and output else path


def protocol_of(content: Content) -> str:
    """What two results must share to be compared: the name, and what the figures depend on most."""
    protocol, details = str(content["protocol"]).replace("(exact)", "(trained)"), content["details"]  # its old name
    match protocol.partition(" ")[0]:
        case "knn":
            return f"knn, k = {details['k']}"
        case "semi":
            return f"semi, {_percent(details['train_share'])}"
        case "linear" if "lr" in details:
            epochs = int(details.get("epochs") or content["settings"]["linear"]["epochs"])
            return f"{protocol}, {epochs} epoch{'s' * (epochs > 1)}"
    return protocol


def _measured_detection(content: Content, letter: str) -> DetectionRow:
    data, checkpoint, masks = content["data"], content["checkpoint"], content.get("masks", {})
    figures = (content["boxes"]["ap"], content["boxes"]["ap50"], masks.get("ap"), masks.get("ap50"))
    return DetectionRow(
        "measured",
        str(checkpoint["backbone"]),
        str(checkpoint["path"]),
        f"{data['train']['split']} / {data['val']['split']}, {content['details']['total_steps']:,} steps{letter}",
        *(None if figure is None else float(figure) for figure in figures),
    )


def _labels(content: Content) -> float | None:
    """The share of labels of a semi-supervised result, as published (0.01 or 0.1) if it is nearly that."""
    if content["protocol"] != "semi":
        return None
    share: float = content["details"]["train_share"]
    return next((known for known in (0.01, 0.1) if 0.8 < share / known < 1.25), share)


def paper_name(backbone: str) -> str:
    """The paper's name of a backbone, which timm may call differently."""
    return next((name for name, timm_name in ALIASES.items() if backbone in (name, timm_name)), backbone)


def published_content() -> dict[str, Any]:
    """The published numbers: where they come from, and in ``rows`` protocol, method, backbone, labels and top-1 (%).

    ``labels`` is the share of labels, None for all.
    """
    content: dict[str, Any] = json.loads((files("sslight.evaluate") / "published.json").read_text(encoding="utf-8"))
    return content


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
