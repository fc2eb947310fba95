import json
from pathlib import Path

import pytest

from sslight.data import DetectionSet, open_detection_sets
from tests.data.detection_files import coco_content, coco_folder, voc_object, write_coco, write_voc


def sets(
    data: Path, *, train: list[str] | None = None, val: list[str] | None = None, masks: bool = False
) -> tuple[DetectionSet, DetectionSet]:
    return open_detection_sets(str(data), train_split=train or [], val_split=val or [], masks=masks)


def test_a_coco_folder_is_known_by_its_annotations(tmp_path: Path) -> None:
    train, val = sets(coco_folder(tmp_path), masks=True)
    assert (train.kind, train.split, val.split) == ("coco", "train2017", "val2017")
    assert sets(tmp_path, val=["train2017"])[1].split == "train2017"


def test_several_or_no_fitting_splits_are_listed(tmp_path: Path) -> None:
    write_coco(coco_folder(tmp_path), coco_content("train2014"), "train2014")
    with pytest.raises(
        ValueError,
        match=r"train_split is not given, and there is not exactly one that fits in .*: the splits are train2014",
    ):
        sets(tmp_path)
    with pytest.raises(ValueError, match=r"val_split=valid is not in .*: the splits are train2014, train2017, val2017"):
        sets(tmp_path, train=["train2017"], val=["valid"])
    with pytest.raises(ValueError, match="names several splits"):
        sets(tmp_path, train=["train2014", "train2017"])


def test_sets_with_other_categories_are_refused(tmp_path: Path) -> None:
    coco_folder(tmp_path)
    file = tmp_path / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["categories"][0]["name"] = "purple thing"
    file.write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"train2017 and val2017 differ in 2 categories \(the first: 7 purple thing, 7 red"
    ):
        sets(tmp_path)


def test_a_voc_folder_is_known_by_its_years_and_has_no_masks(tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit"
    for year, split in ((2007, "trainval"), (2012, "trainval"), (2007, "test")):
        write_voc(root, year, split, {f"{year}_{split}": voc_object("cat", (3, 3, 20, 20))})
    for data in (root, tmp_path):
        train, val = sets(data)
        assert (train.kind, len(train), len(val)) == ("voc", 2, 1)
        assert (train.split, val.split) == ("2007_trainval+2012_trainval", "2007_test")
    with pytest.raises(ValueError, match="masks=true needs a COCO folder"):
        sets(root, masks=True)


def test_any_other_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="contains neither annotations/"):
        sets(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        sets(tmp_path / "absent")


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_a_split_without_an_object_is_refused(tmp_path: Path, split: str) -> None:
    file = coco_folder(tmp_path) / "annotations" / f"instances_{split}.json"
    content = json.loads(file.read_text())
    for each in content["annotations"]:
        each["iscrowd"] = "1"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"^{split} has no object to train or evaluate on \(all \d+ annotations"):
        sets(tmp_path)
    file.write_text(json.dumps(content | {"annotations": []}))
    with pytest.raises(ValueError, match=r"evaluate on \(there is no annotation\)"):
        sets(tmp_path)


def test_own_categories_of_a_voc_folder_are_those_of_its_training_set(tmp_path: Path) -> None:
    write_voc(tmp_path, 2007, "trainval", {name: voc_object(name, (3, 3, 20, 20)) for name in ("wolf", "bear")})
    write_voc(tmp_path, 2007, "test", {"w": voc_object("wolf", (3, 3, 20, 20))})
    train, val = sets(tmp_path, train=["2007_trainval"])
    assert train.categories == val.categories == ("bear", "wolf")
    assert val.images[0].instances[0].label == 1
