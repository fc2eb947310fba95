"""The comparison: our rows and the published ones, never mixed up."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sslight.config import read_recipe, recipe_names
from sslight.evaluate import compare_results, read_result, to_markdown
from sslight.evaluate.compare import published_rows


def result(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "format": "sslight-evaluation",
        "protocol": "linear (exact)",
        "accuracy": {"top1": 61.25, "top1_interval": [60.1, 62.4], "top5": 84.0, "num_images": 2500},
        "checkpoint": {"path": "runs/a|b/backbone.safetensors", "backbone": "mobilenet_v2"},
        "data": {"train": {"num_images": 25000}, "val": {"num_images": 2500}},
        "details": {},
        "transform": {"image_size": 64},
    }
    return content | changes


def test_a_measured_row_is_followed_by_the_published_rows_of_its_network_and_protocol() -> None:
    rows = compare_results([result()])
    assert [row.origin for row in rows] == ["measured"] + 6 * ["published"]
    assert rows[0].top1 == 61.25
    assert {row.top1 for row in rows[1:]} == {66.2, 68.3, 65.2, 67.3, 60.6, 61.6}
    assert all(row.top1_interval is None and row.data == "ImageNet-1k at 224 px" for row in rows[1:])


def test_the_table_tells_them_apart() -> None:
    text = to_markdown(compare_results([result(), result(protocol="linear (fast)")]))
    lines = text.splitlines()
    assert lines[2] == (
        "| measured here | mobilenet_v2 | runs/a\\|b/backbone.safetensors | linear (exact) "
        "| 25,000 + 2,500 images at 64 px | 61.2 [60.1, 62.4] | 84.0 |"
    )
    assert sum(line.startswith("| measured here") for line in lines) == 2
    assert sum(line.startswith("| *published*") for line in lines) == 6
    assert "by the authors" in lines[-1]
    assert "not measured here" in lines[-1]


def test_timm_names_find_their_published_rows_and_other_networks_have_none() -> None:
    timm_row = compare_results(
        [result(checkpoint={"path": "timm:vit_tiny_patch16_224", "backbone": "vit_tiny_patch16_224"})]
    )
    assert [row.top1 for row in timm_row[1:]] == [66.7, 69.5]
    other = compare_results([result(checkpoint={"path": "timm:resnet50", "backbone": "resnet50"})])
    assert len(other) == 1
    assert "published" not in to_markdown(other)


@pytest.mark.parametrize(("share", "expected"), [(0.01, [47.9, 50.6]), (0.1, [61.3, 63.5]), (0.04, []), (1.0, [])])
def test_fine_tuning_is_compared_at_its_share_of_labels_only(share: float, expected: list[float]) -> None:
    rows = compare_results([result(protocol="semi", details={"train_share": share})])
    assert [row.top1 for row in rows[1:]] == expected


def test_knn_has_no_published_row() -> None:
    (row,) = compare_results([result(protocol="knn", details={"k": 20})])
    assert row.protocol == "knn, k = 20"


def test_published_numbers_are_those_of_the_recipes() -> None:
    linear = [row for row in published_rows() if row["protocol"] == "linear"]
    in_recipes = []
    for name in recipe_names():
        if name.endswith("_64") or name == "quickstart":
            continue
        expected = next(line for line in read_recipe(name).header if line.startswith("expected"))
        in_recipes += [float(number) for number in re.findall(r"\d\d\.\d", expected)]
    assert sorted(row["top1"] for row in linear) == sorted(in_recipes)


def test_a_result_is_read_from_its_file_or_folder_and_nothing_else_is(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(result()), encoding="utf-8")
    assert read_result(file) == read_result(tmp_path) == result()
    for content in ("{}", "[]", "no JSON"):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match="is not a result of sslight evaluate"):
            read_result(file)
    with pytest.raises(ValueError, match="cannot be read"):
        read_result(tmp_path / "nowhere")
