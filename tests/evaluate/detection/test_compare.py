from typing import Any

from sslight.evaluate.compare import Comparison
from sslight.evaluate.rows import compare_detections


def result(backbone: str, *, masks: bool) -> dict[str, Any]:
    content: dict[str, Any] = {
        "protocol": "detect",
        "checkpoint": {"path": "runs/a.safetensors", "backbone": backbone},
        "data": {"train": {"split": "train2017"}, "val": {"split": "val2017"}},
        "details": {"total_steps": 90000},
        "boxes": {"ap": 33.26, "ap50": 51.0},
    }
    return content | ({"masks": {"ap": 30.0, "ap50": None}} if masks else {})


def test_a_measured_row_is_followed_by_the_published_rows_of_its_network() -> None:
    rows = compare_detections([result("mobilenetv2_100", masks=True), result("resnet50", masks=False)])
    assert [row.origin for row in rows] == ["measured", "published", "published", "measured"]
    assert [(row.box_ap, row.mask_ap) for row in rows[1:3]] == [(30.9, 28.1), (32.1, 29.1)]


def table(*contents: dict[str, Any]) -> str:
    return Comparison([], [], compare_detections(contents), []).to_markdown()


def test_the_table_tells_measured_from_published() -> None:
    lines = table(result("resnet18", masks=True)).splitlines()
    assert lines[2] == (
        "| measured here | resnet18 | runs/a.safetensors | train2017 / val2017, 90,000 steps | 33.3 | 51.0 | 30.0 |  |"
    )
    assert sum(line.startswith("| *published*") for line in lines) == 2
    assert "not measured here" in lines[-1]
    assert "published" not in table(result("resnet50", masks=False))


def test_detections_of_other_data_say_so() -> None:
    data = {"train": {"split": "train2017"}, "val": {"split": "val2017", "num_images": 80, "sha256": "b"}}
    lines = table(result("resnet50", masks=False), result("resnet50", masks=False) | {"data": data}).splitlines()
    assert "steps, set A |" in lines[2]
    assert "steps, set B |" in lines[3]
    assert lines[-1].startswith("Sets with different letters hold different images")
