"""Results side by side, with the published ones of the same network and protocol."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from sslight.backbones import ALIASES

_HEADER = ("from", "backbone", "weights", "protocol", "data", "top-1 [95 %]", "top-5")
MEASURED, PUBLISHED = "measured here", "*published*"


@dataclass(frozen=True)
class Row:
    """A line of the comparison: ``origin`` tells a measurement of this program from a published number."""

    origin: Literal["measured", "published"]
    backbone: str
    weights: str
    protocol: str
    data: str
    top1: float
    top1_interval: tuple[float, float] | None
    top5: float | None


def compare_results(results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row for each result (content of a ``results.json``), each kind followed by the published rows for it."""
    kinds: dict[tuple[str, str, float | None], list[Row]] = {}
    for content in results:
        key = (paper_name(content["checkpoint"]["backbone"]), content["protocol"].split()[0], _labels(content))
        kinds.setdefault(key, []).append(_measured(content))
    rows = []
    for (backbone, protocol, labels), measured in kinds.items():
        rows += measured
        rows += _published(backbone, protocol, labels)
    return rows


def to_markdown(rows: Sequence[Row]) -> str:
    """One Markdown table, and below it what the published rows are, if there are any."""
    lines = [table_line(_HEADER), table_line(["---"] * len(_HEADER)), *(table_line(_cells(row)) for row in rows)]
    if any(row.origin == "published" for row in rows):
        lines += ["", f"{PUBLISHED}: {published_note()}"]
    return "\n".join(lines)


def published_note(*, classified: bool = True) -> str:
    """What the published rows are, for the foot of a table of classification (or of detection) results."""
    content = published_content()
    note = f"by the authors ({content['source']}), not measured here"
    return f"{note}; {content['data']}. They compare with results on the same data only." if classified else f"{note}."


def _measured(content: Mapping[str, Any]) -> Row:
    accuracy, checkpoint, data = content["accuracy"], content["checkpoint"], content["data"]
    low, high = accuracy["top1_interval"]
    protocol = content["protocol"]
    if protocol == "knn":
        protocol = f"knn, k = {content['details']['k']}"
    elif protocol == "semi":
        protocol = f"semi, {_percent(content['details']['train_share'])}"
    size = content["transform"]["image_size"]
    return Row(
        origin="measured",
        backbone=checkpoint["backbone"],
        weights=checkpoint["path"],
        protocol=protocol,
        data=f"{data['train']['num_images']:,} + {data['val']['num_images']:,} images at {size} px",
        top1=accuracy["top1"],
        top1_interval=(low, high),
        top5=accuracy["top5"],
    )


def _published(backbone: str, protocol: str, labels: float | None) -> list[Row]:
    return [
        Row(
            origin="published",
            backbone=backbone,
            weights=row["method"],
            protocol=protocol if row["labels"] is None else f"{protocol}, {_percent(row['labels'])}",
            data="ImageNet-1k at 224 px",
            top1=row["top1"],
            top1_interval=None,
            top5=None,
        )
        for row in published_rows()
        if (row["backbone"], row["protocol"], row["labels"]) == (backbone, protocol, labels)
    ]


def _labels(content: Mapping[str, Any]) -> float | None:
    """The share of labels of a semi-supervised result, as published (0.01 or 0.1) if it is nearly that."""
    if content["protocol"] != "semi":
        return None
    share: float = content["details"]["train_share"]
    return next((known for known in (0.01, 0.1) if 0.8 < share / known < 1.25), share)


def paper_name(backbone: str) -> str:
    """The paper's name of a backbone, which timm may call differently."""
    return next((name for name, timm_name in ALIASES.items() if backbone in (name, timm_name)), backbone)


def published_rows() -> list[dict[str, Any]]:
    """The published numbers: protocol, method, backbone, share of labels (None for all) and top-1 (%)."""
    rows: list[dict[str, Any]] = published_content()["rows"]
    return rows


def published_content() -> dict[str, Any]:
    """All of the published numbers, and where they come from."""
    content: dict[str, Any] = json.loads((files("sslight.evaluate") / "published.json").read_text(encoding="utf-8"))
    return content


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _cells(row: Row) -> list[str]:
    interval = "" if row.top1_interval is None else " [{:.1f}, {:.1f}]".format(*row.top1_interval)
    return [
        MEASURED if row.origin == "measured" else PUBLISHED,
        row.backbone,
        row.weights,
        row.protocol,
        row.data,
        f"{row.top1:.1f}{interval}",
        "" if row.top5 is None else f"{row.top5:.1f}",
    ]


def table_line(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
