"""Results side by side: with the published ones of the same network, and with each other on the same images."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from statistics import fmean
from typing import Any

import torch

from sslight.evaluate.classifiers.metrics import hits
from sslight.evaluate.classifiers.mistakes import paired_precision_difference
from sslight.evaluate.results import FILE_NAME, read_ranks, read_result, read_scores, result_files
from sslight.evaluate.rows import (
    Content,
    DetectionRow,
    LabelRow,
    Row,
    compare_detections,
    compare_multi_label,
    compare_results,
    is_multi_label,
    protocol_of,
    published_note,
    weights_of,
)
from sslight.intervals import Difference, difference_of_means, mean_interval, paired_difference

_HEADER = ("from", "backbone", "weights", "protocol", "data", "top-1 [95 %]", "top-5")
_LABEL_HEADER = ("from", "backbone", "weights", "protocol", "data", "mAP [95 %]")
_DETECTION_HEADER = ("from", "backbone", "weights", "data", "box AP", "box AP50", "mask AP", "mask AP50")


@dataclass(frozen=True)
class Comparison:
    """Rows of all results, and in plain data and in sentences the differences between two sides of them."""

    rows: list[Row]
    multi_label: list[LabelRow]
    detections: list[DetectionRow]
    differences: list[dict[str, Any]]

    def to_markdown(self) -> str:
        """Tables, what there is to know of them, and a sentence for each difference."""
        parts = []
        if self.rows:
            parts.append(_table(_HEADER, self.rows, _cells, published_note()))
        if self.multi_label:
            parts.append(_table(_LABEL_HEADER, self.multi_label, _label_cells, ""))
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
    multi_label = [content for content in contents if is_multi_label(content)]
    return Comparison(
        compare_results([content for content in contents if content not in [*detections, *multi_label]]),
        compare_multi_label(multi_label),
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
    try:
        rows: Callable[[list[Content]], Any] = compare_multi_label if is_multi_label(content) else compare_results
        _ = (compare_detections if content["protocol"] == "detect" else rows)([content])
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
                key = [protocol_of(content), content["data"]["val"].get("sha256")]
                side.setdefault(json.dumps(key), []).append((folder, content))
    found = [_difference(json.loads(key)[0], side, sides[1][key]) for key, side in sides[0].items() if key in sides[1]]
    if not found and all(sides):
        found = [{"sentence": "No difference: no protocol was measured on the same images on both sides."}]
    return found


def _difference(protocol: str, one: list[tuple[Path, Content]], other: list[tuple[Path, Content]]) -> dict[str, Any]:
    multi_label = is_multi_label(one[0][1])
    key, of = ("map", " of mean average precision") if multi_label else ("top1", "")
    values = [[float(content["accuracy"][key]) for _, content in side] for side in (one, other)]
    found: Difference | None = None
    if len(one) == len(other) == 1:
        named = [weights_of(side[0][1]) for side in (one, other)]
        between, basis = named if named[0] != named[1] else [str(side[0][0]) for side in (one, other)], "images"
        found, number = (_paired_labels if multi_label else _paired)(one[0][0], other[0][0])
        why = f"paired over the same {number:,} images, not over seeds"
        if found is None:
            why = "the answers for each image are missing or of other images, so there is no interval"
    else:
        between, basis = [_mean(each) for each in values], "runs"
        if min(map(len, values)) > 1:
            found, why = difference_of_means(*values), "over runs, by Student's t"
        else:
            why = "a single run on one side, so there is no interval"
    value = fmean(values[0]) - fmean(values[1])
    shown = f"{value:+.1f}" + ("" if found is None else f" [{found.low:+.1f}, {found.high:+.1f}]")
    verdict = None if found is None else found.verdict
    sentence = f"{protocol}: {' − '.join(between)}: {shown} points{of} ({why})"
    facts = asdict(found) if found else {"value": value}
    return {
        "protocol": protocol,
        "over": basis,
        **facts,
        "verdict": verdict,
        "sentence": sentence + (f": **{verdict}**." if verdict else "."),
    }


def _paired(one: Path, other: Path) -> tuple[Difference | None, int]:
    """The difference over the images of two folders, and their number; None if they are not the same images."""
    first, second = read_ranks(one), read_ranks(other)
    if first is None or second is None or first[0] != second[0] or len(first[1]) != len(second[1]):
        return None, 0
    return paired_difference(*(hits(ranks).tolist() for _, ranks in (first, second))), len(first[1])


def _paired_labels(one: Path, other: Path) -> tuple[Difference | None, int]:
    """The same of labels that do not exclude each other."""
    first, second = read_scores(one), read_scores(other)
    if first is None or second is None or first[0] != second[0] or not torch.equal(first[2], second[2]):
        return None, 0
    arrays = [each.numpy() for each in (first[1], second[1], first[2])]
    return paired_precision_difference(*arrays), len(arrays[0])


def _mean(values: Sequence[float]) -> str:
    middle, half = mean_interval(values)
    return f"{middle:.1f} (one run)" if len(values) == 1 else f"{middle:.1f} ± {half:.1f} ({len(values)} runs)"


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


def _label_cells(row: LabelRow) -> list[str]:
    return [row.protocol, row.data, "{:.1f} [{:.1f}, {:.1f}]".format(row.map, *row.map_interval)]


def _detection_cells(row: DetectionRow) -> list[str]:
    figures = (row.box_ap, row.box_ap50, row.mask_ap, row.mask_ap50)
    return [row.data, *("" if figure is None else f"{figure:.1f}" for figure in figures)]
