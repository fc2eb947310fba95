"""Results side by side: with the published ones of the same network, and with each other on the same images."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from shlex import quote
from statistics import fmean
from typing import Any, Literal, TypeVar

from sslight.backbones import ALIASES, is_public
from sslight.config.schema.fields import is_new_network
from sslight.evaluate.classifiers.metrics import hits
from sslight.evaluate.results import FILE_NAME, read_ranks, read_result, result_files
from sslight.intervals import Difference, difference_of_means, mean_interval, paired_difference

_Kind = TypeVar("_Kind")
_Row = TypeVar("_Row")

Content = Mapping[str, Any]
"""What a ``results.json`` holds."""

_HEADER = ("from", "backbone", "weights", "protocol", "data", "top-1 [95 %]", "top-5")
_DETECTION_HEADER = ("from", "backbone", "weights", "data", "box AP", "box AP50", "mask AP", "mask AP50")


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


@dataclass(frozen=True)
class Comparison:
    """Rows of all results, and in plain data and in sentences the differences between two sides of them."""

    rows: list[Row]
    detections: list[DetectionRow]
    differences: list[dict[str, Any]]

    def to_markdown(self) -> str:
        """Tables, what there is to know of them, and a sentence for each difference."""
        parts = []
        if self.rows:
            parts.append(_table(_HEADER, self.rows, _cells, published_note()))
        if self.detections:
            parts.append(_table(_DETECTION_HEADER, self.detections, _detection_cells, published_note(classified=False)))
        if self.differences:
            parts.append("\n".join(f"- {each['sentence']}" for each in self.differences))
        return "\n\n".join(parts)


def compare_files(sides: Sequence[Sequence[Path]]) -> Comparison:
    """Compare results; of two sides, the first with the second, protocol by protocol.

    ``sides`` are files ``results.json``, folders that hold one, or run folders, for all results of the run. Raises
    ValueError if a result is missing, incomplete or of another program.
    """
    read = [[(file.parent, _checked(file)) for path in side for file in _result_files(path)] for side in sides]
    contents = [content for side in read for _, content in side]
    detections = [content for content in contents if content["protocol"] == "detect"]
    return Comparison(
        compare_results([content for content in contents if content not in detections]),
        compare_detections(detections),
        _differences(*read) if len(read) == 2 else [],
    )


def _result_files(path: Path) -> list[Path]:
    """The results that a path means."""
    if path.is_dir() and not (path / FILE_NAME).exists() and (path / "config.yaml").exists():
        if found := result_files(path):
            return found
        raise ValueError(
            f"{path} is a run without results: measure it with `sslight evaluate knn {quote(str(path))} ...`."
        )
    return [path / FILE_NAME if path.is_dir() else path]


def _checked(file: Path) -> Content:
    content = read_result(file)
    if "map" in (content.get("accuracy") or {}):
        raise ValueError(
            f"{file} has the mean average precision of a multi-label result: leave it out, because only accuracies "
            "are compared."
        )
    try:
        _ = compare_detections([content]) if content["protocol"] == "detect" else compare_results([content])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{file} is incomplete or damaged ({reason}): evaluate again, or leave it out.") from None
    return content


def _differences(one: list[tuple[Path, Content]], other: list[tuple[Path, Content]]) -> list[dict[str, Any]]:
    """A difference for each protocol and set that both sides have."""
    sides: list[dict[str, list[tuple[Path, Content]]]] = [{}, {}]
    for side, results in zip(sides, (one, other), strict=True):
        for folder, content in results:
            if content["protocol"] != "detect":
                key = [_protocol(content), content["data"]["val"].get("sha256")]
                side.setdefault(json.dumps(key), []).append((folder, content))
    found = [_difference(json.loads(key)[0], side, sides[1][key]) for key, side in sides[0].items() if key in sides[1]]
    if not found and all(sides):
        found = [{"sentence": "No difference: no protocol was measured on the same images on both sides."}]
    return found


def _difference(protocol: str, one: list[tuple[Path, Content]], other: list[tuple[Path, Content]]) -> dict[str, Any]:
    top1 = [[float(content["accuracy"]["top1"]) for _, content in side] for side in (one, other)]
    found: Difference | None = None
    if len(one) == len(other) == 1:
        between, basis = (side[0][1]["checkpoint"]["path"] for side in (one, other)), "images"
        ranks = [read_ranks(side[0][0]) for side in (one, other)]
        if ranks[0] and ranks[1] and ranks[0][0] == ranks[1][0] and len(ranks[0][1]) == len(ranks[1][1]):
            found = paired_difference(*(hits(each[1]).tolist() for each in ranks if each))
            why = f"paired over the same {len(ranks[0][1]):,} images, not over seeds"
        else:
            why = "the per-image ranks are missing or of other images, so there is no interval"
    else:
        between, basis = (_mean(values) for values in top1), "runs"
        if min(map(len, top1)) > 1:
            found, why = difference_of_means(*top1), "over runs, by Student's t"
        else:
            why = "a single run on one side, so there is no interval"
    value = fmean(top1[0]) - fmean(top1[1])
    shown = f"{value:+.1f}" + ("" if found is None else f" [{found.low:+.1f}, {found.high:+.1f}]")
    verdict = None if found is None else found.verdict
    sentence = f"{protocol}: {' − '.join(between)}: {shown} points ({why})" + (f": **{verdict}**." if verdict else ".")
    facts = asdict(found) if found else {"value": value}
    return {"protocol": protocol, "over": basis, **facts, "verdict": verdict, "sentence": sentence}


def _mean(values: Sequence[float]) -> str:
    middle, half = mean_interval(values)
    return f"{middle:.1f} (one run)" if len(values) == 1 else f"{middle:.1f} ± {half:.1f} ({len(values)} runs)"


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
    accuracy, checkpoint, data, details = (content[key] for key in ("accuracy", "checkpoint", "data", "details"))
    low, high = accuracy["top1_interval"]
    protocol = _protocol(content)
    if "lr" in details:
        tried = details.get("lr_tried", ())
        chosen = f", best of {len(tried)} on held-out training images" if len(tried) > 1 else ""
        protocol += f", rate {details['lr']:g}{chosen}, batch {details['batch_size']:,}"
    network = checkpoint.get("network")
    named = is_new_network(checkpoint["path"]) or is_public(checkpoint["path"])
    if network and not named and (network != "student" or "lr" in details):
        protocol += f", {network}"
    return Row(
        origin="measured",
        backbone=str(checkpoint["backbone"]),
        weights=str(checkpoint["path"]),
        protocol=protocol,
        data=f"{data['train']['num_images']:,} + {data['val']['num_images']:,} images at "
        f"{content['transform']['image_size']} px{letter}",
        top1=float(accuracy["top1"]),
        top1_interval=(float(low), float(high)),
        top5=None if accuracy["top5"] is None else float(accuracy["top5"]),
    )


def _protocol(content: Content) -> str:
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


def _table(header: Sequence[str], rows: Sequence[Any], cells: Callable[[Any], list[str]], note: str) -> str:
    """A Markdown table, and below it what published rows are and that sets differ, if there are any such."""
    names = {"measured": "measured here", "published": "*published*"}
    lines = [header, ["---"] * len(header)]
    lines += [[names[row.origin], row.backbone, row.weights, *cells(row)] for row in rows]
    text = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    if any(row.origin == "published" for row in rows):
        text += ["", f"*published*: {note}"]
    if any(", set B" in row.data for row in rows):
        text += ["", "Sets with different letters hold different images: their results are not comparable."]
    return "\n".join(text)


def _cells(row: Row) -> list[str]:
    interval = "" if row.top1_interval is None else " [{:.1f}, {:.1f}]".format(*row.top1_interval)
    return [row.protocol, row.data, f"{row.top1:.1f}{interval}", "" if row.top5 is None else f"{row.top5:.1f}"]


def _detection_cells(row: DetectionRow) -> list[str]:
    figures = (row.box_ap, row.box_ap50, row.mask_ap, row.mask_ap50)
    return [row.data, *("" if figure is None else f"{figure:.1f}" for figure in figures)]
