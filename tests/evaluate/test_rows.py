"""What results say, a row for each, beside the published rows."""

import re

import pytest

from sslight.config import read_recipe, recipe_names
from sslight.evaluate.rows import compare_results, published_content
from tests.evaluate.test_compare import result, table

TRAINED = {"lr": 0.5, "lr_tried": [0.05, 0.5], "batch_size": 3125, "epochs": 1}


def test_a_measured_row_is_followed_by_the_published_content_of_its_network_and_protocol() -> None:
    rows = compare_results([result()])
    assert [row.origin for row in rows] == ["measured"] + 6 * ["published"]
    assert rows[0].top1 == 61.25
    assert {row.top1 for row in rows[1:]} == {66.2, 68.3, 65.2, 67.3, 60.6, 61.6}
    assert all(row.top1_interval is None and row.data == "ImageNet-1k at 224 px" for row in rows[1:])


def test_a_short_run_of_several_rates_is_not_called_exact_and_says_what_it_was() -> None:
    checkpoint = {"path": "runs/a.safetensors", "backbone": "mobilenet_v2", "network": "teacher"}
    row, *published = compare_results([result(protocol="linear (trained)", details=TRAINED, checkpoint=checkpoint)])
    assert row.protocol == (
        "linear (trained), 1 epoch, rate 0.5, best of 2 on held-out training images, batch 3,125, teacher"
    )
    assert {other.protocol for other in published} == {"linear (published)"}
    old = {key: value for key, value in TRAINED.items() if key != "epochs"}
    row = compare_results([result(protocol="linear (exact)", details=old, settings={"linear": {"epochs": 100}})])[0]
    assert row.protocol.startswith("linear (trained), 100 epochs, rate 0.5, best of 2")


def test_timm_names_find_their_published_content_and_other_networks_have_none() -> None:
    timm_row = compare_results(
        [result(checkpoint={"path": "timm:vit_tiny_patch16_224", "backbone": "vit_tiny_patch16_224"})]
    )
    assert [row.top1 for row in timm_row[1:]] == [66.7, 69.5]
    other = compare_results([result(checkpoint={"path": "timm:resnet50", "backbone": "resnet50"})])
    assert len(other) == 1
    assert "published" not in table(result(checkpoint={"path": "timm:resnet50", "backbone": "resnet50"}))


@pytest.mark.parametrize(("share", "expected"), [(0.01, [47.9, 50.6]), (0.1, [61.3, 63.5]), (0.04, []), (1.0, [])])
def test_fine_tuning_is_compared_at_its_share_of_labels_only(share: float, expected: list[float]) -> None:
    rows = compare_results([result(protocol="semi", details={"train_share": share})])
    assert [row.top1 for row in rows[1:]] == expected


def test_knn_has_no_published_row() -> None:
    (row,) = compare_results([result(protocol="knn", details={"k": 20})])
    assert row.protocol == "knn, k = 20"


def test_published_numbers_are_those_of_the_recipes() -> None:
    linear = [row for row in published_content()["rows"] if row["protocol"] == "linear"]
    in_recipes = []
    for name in recipe_names():
        if name.endswith("_64") or name == "quickstart":
            continue
        expected = next(line for line in read_recipe(name).header if line.startswith("expected"))
        in_recipes += [float(number) for number in re.findall(r"\d\d\.\d", expected)]
    assert sorted(row["top1"] for row in linear) == sorted(in_recipes)
