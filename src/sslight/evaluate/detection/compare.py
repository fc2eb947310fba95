"""Detection results side by side, with the published ones of the same network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sslight.evaluate.compare import MEASURED, PUBLISHED, paper_name, published_content, published_note, table_line

_HEADER = ("from", "backbone", "weights", "data", "box AP", "box AP50", "mask AP", "mask AP50")


@dataclass(frozen=True)
class DetectionRow:
    """A line of the comparison, figures in percent; ``origin`` as in :class:`~sslight.evaluate.compare.Row`."""

    origin: Literal["measured", "published"]
    backbone: str
    weights: str
    data: str
    box_ap: float | None
    box_ap50: float | None
    mask_ap: float | None
    mask_ap50: float | None


def compare_detections(results: Sequence[Mapping[str, Any]]) -> list[DetectionRow]:
    """A row for each result (content of a ``results.json``), each network followed by the published rows for it."""
    by_backbone: dict[str, list[DetectionRow]] = {}
    for content in results:
        by_backbone.setdefault(paper_name(content["checkpoint"]["backbone"]), []).append(_measured(content))
    published = published_content()["detection"]
    rows = []
    for backbone, measured in by_backbone.items():
        rows += measured
        rows += [
            DetectionRow(
                origin="published",
                backbone=backbone,
                weights=row["method"],
                data=published["data"],
                box_ap=row["box_ap"],
                box_ap50=None,
                mask_ap=row["mask_ap"],
                mask_ap50=None,
            )
            for row in published["rows"]
            if row["backbone"] == backbone
        ]
    return rows


def detections_to_markdown(rows: Sequence[DetectionRow]) -> str:
    """One Markdown table, and below it what the published rows are, if there are any."""
    lines = [table_line(_HEADER), table_line(["---"] * len(_HEADER)), *(table_line(_cells(row)) for row in rows)]
    if any(row.origin == "published" for row in rows):
        lines += ["", f"{PUBLISHED}: {published_note(classified=False)}"]
    return "\n".join(lines)


def _measured(content: Mapping[str, Any]) -> DetectionRow:
    data, checkpoint, masks = content["data"], content["checkpoint"], content.get("masks", {})
    return DetectionRow(
        origin="measured",
        backbone=checkpoint["backbone"],
        weights=checkpoint["path"],
        data=f"{data['train']['split']} / {data['val']['split']}, {content['details']['total_steps']:,} steps",
        box_ap=content["boxes"]["ap"],
        box_ap50=content["boxes"]["ap50"],
        mask_ap=masks.get("ap"),
        mask_ap50=masks.get("ap50"),
    )


def _cells(row: DetectionRow) -> list[str]:
    figures = (row.box_ap, row.box_ap50, row.mask_ap, row.mask_ap50)
    return [
        MEASURED if row.origin == "measured" else PUBLISHED,
        row.backbone,
        row.weights,
        row.data,
        *("" if figure is None else f"{figure:.1f}" for figure in figures),
    ]
