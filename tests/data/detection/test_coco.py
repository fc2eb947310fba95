import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as original_mask_api

from sslight.data import DetectionSet, decode_mask
from sslight.data.detection.coco import read_coco, run_lengths
from tests.data.detection_files import coco_content, write_coco


def read(root: Path, content: dict[str, Any], *, masks: bool = True) -> DetectionSet:
    write_coco(root, content, "train2017")
    return read_coco(root / "annotations" / "instances_train2017.json", root / "train2017", masks=masks)


def test_images_categories_and_objects_are_those_of_the_file(tmp_path: Path) -> None:
    content = coco_content("train2017")
    images = read(tmp_path, content)
    assert [image.key for image in images.images] == [image["id"] for image in content["images"]]
    assert images.category_keys == (3, 7, 90)
    assert images.categories == ("green thing", "red thing", "blue thing")
    for image in images.images:
        expected = [each for each in content["annotations"] if each["image_id"] == image.key]
        assert [list(each.box) for each in image.instances] == [each["bbox"] for each in expected]
        assert [images.category_keys[each.label] for each in image.instances] == [
            each["category_id"] for each in expected
        ]


def test_without_masks_segmentations_are_neither_read_nor_checked(tmp_path: Path) -> None:
    content = coco_content("train2017")
    content["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
    images = read(tmp_path, content, masks=False)
    assert all(each.segmentation is None for image in images.images for each in image.instances)


def test_an_image_without_objects_is_kept(tmp_path: Path) -> None:
    content = coco_content("train2017")
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] != 101]
    images = read(tmp_path, content)
    assert len(images) == 6
    assert len(images.trainable()) == 5


def damaged(kind: str) -> tuple[dict[str, Any], str]:
    """A content that is wrong in one way, and what must be said of it."""
    content = coco_content("train2017")
    annotations, images = content["annotations"], content["images"]
    match kind:
        case "image_id":
            for each in annotations[:5]:
                each["image_id"] = 999
            return content, r"has 5 annotations whose image_id is not among its images \(annotation 1, 2, 3, \.\.\.\)"
        case "category_id":
            annotations[1]["category_id"] = 4
            return content, r"has 1 annotation whose category_id is not in its list of categories \(annotation 2\)"
        case "two points":
            annotations[0]["segmentation"] = [[1, 2, 3, 4]]
            annotations[4]["segmentation"] = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5]]
            return content, r"has 2 annotations whose segmentation has a polygon of fewer than three points .* 1, 5\)"
        case "no mask":
            del annotations[2]["segmentation"]
            return content, r"has 1 annotation whose segmentation is missing or empty \(annotation 3\)"
        case "run lengths too short":
            annotations[3]["segmentation"] = {"size": [48, 64], "counts": [10, 20]}
            return content, r"run-length mask does not fit its image \(annotation 4\)"
        case "run lengths of another size":
            annotations[3]["segmentation"] = {"size": [64, 48], "counts": [48 * 64]}
            annotations[3]["image_id"] = 100
            return content, r"run-length mask does not fit its image \(annotation 4\)"
        case "box":
            annotations[0]["bbox"] = [1, 2, -3, 4]
            annotations[1]["bbox"] = [1, 2, float("nan"), 4]
            annotations[2]["bbox"] = [1, 2, 3]
            return content, r"has 3 annotations whose bbox is not four finite numbers"
        case "area":
            annotations[0]["area"] = [1]
            return content, r"has 1 annotation whose area is no number \(annotation 1\)"
        case "endless box":
            annotations[1]["bbox"] = [1, 2, 10**400, 4]
            return content, r"has 1 annotation whose bbox is not four finite numbers"
        case "absolute name":
            images[1]["file_name"] = "/etc/hostname"
            return content, r"1 file names lead out of .* \(the first: /etc/hostname\)"
        case "climbing name":
            images[1]["file_name"] = "../train2017/" + images[1]["file_name"]
            return content, r"1 file names lead out of"
        case "image twice":
            images.append(dict(images[0]))
            return content, r"has 1 image whose id is there more than once \(image 100\)"
        case "annotation twice":
            annotations.append(dict(annotations[0]))
            return content, r"has 1 annotation whose id is there more than once \(annotation 1\)"
        case "keys":
            del images[1]["height"]
            return content, r"1 of 6 entries of images lack one of id \(int\), file_name \(str\), .* number 1\)"
        case "size":
            images[1]["height"] = 0
            return content, r"has 1 image whose height or width is below 1 \(image 101\)"
        case "no categories":
            del content["categories"]
            return content, "has no list of categories"
    raise AssertionError(kind)


KINDS = [
    "image_id",
    "category_id",
    "two points",
    "no mask",
    "run lengths too short",
    "run lengths of another size",
    "box",
    "area",
    "endless box",
    "absolute name",
    "climbing name",
    "image twice",
    "annotation twice",
    "keys",
    "size",
    "no categories",
]


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_annotations_are_named_with_their_number_and_the_first_ids(kind: str, tmp_path: Path) -> None:
    content, message = damaged(kind)
    write_coco(tmp_path, coco_content("train2017"), "train2017")
    file = tmp_path / "annotations" / "instances_train2017.json"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_coco(file, tmp_path / "train2017", masks=True)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no annotation file"):
        read_coco(tmp_path / "instances_train2017.json", tmp_path, masks=False)
    read(tmp_path, coco_content("train2017"))
    for index in (1, 2, 3, 4):
        (tmp_path / "train2017" / f"train2017_{index}.jpg").unlink()
    file = tmp_path / "annotations" / "instances_train2017.json"
    with pytest.raises(
        ValueError, match=r"lacks 4 of 6 annotated images \(the first: train2017_1.jpg, .*_3.jpg, \.\.\.\)"
    ):
        read_coco(file, tmp_path / "train2017", masks=False)
    with pytest.raises(ValueError, match="there is no folder of images"):
        read_coco(file, tmp_path / "absent", masks=False)
    file.write_text("{")
    with pytest.raises(ValueError, match="is not a JSON file"):
        read_coco(file, tmp_path / "train2017", masks=False)


def test_run_lengths_in_all_three_forms_give_the_same_mask(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mask = np.asfortranarray((rng.random((48, 64)) < 0.3).astype(np.uint8))
    packed = original_mask_api.encode(mask)
    text = {"size": [48, 64], "counts": packed["counts"].decode()}
    counts = run_lengths(text, (48, 64))
    assert counts is not None
    column = np.concatenate([np.full(count, number % 2) for number, count in enumerate(counts)])
    np.testing.assert_array_equal(column.reshape((48, 64), order="F"), mask)
    assert run_lengths({"size": [48, 64], "counts": counts}, (48, 64)) == counts

    content = coco_content("train2017")
    content["annotations"][0] |= {"segmentation": text, "iscrowd": 1}
    instance = read(tmp_path, content).images[0].instances[0]
    assert instance.crowd
    assert isinstance(instance.segmentation, dict)
    np.testing.assert_array_equal(decode_mask(instance.segmentation), mask)


@pytest.mark.parametrize("text", ["", "a", "~~~", "\x7f", "P" * 40, "o16>0a"])
def test_text_that_is_no_run_lengths_is_refused(text: str) -> None:
    assert run_lengths({"size": [20, 30], "counts": text}, (20, 30)) is None
