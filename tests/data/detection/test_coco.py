import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as original_mask_api

from sslight.data import DetectionSet, decode, decode_mask
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


@pytest.mark.parametrize(
    ("value", "crowd"),
    [
        ("0", False),
        ("1", True),
        (0.0, False),
        (1.0, True),
        (True, True),
        ("false", False),
        ("True", True),
        (None, False),
    ],
)
def test_a_crowd_is_one_however_it_is_written(tmp_path: Path, value: Any, crowd: bool) -> None:
    content = coco_content("train2017")
    content["annotations"][0]["iscrowd"] = value
    assert read(tmp_path, content).images[0].instances[0].crowd == crowd


@pytest.mark.parametrize("kind", [float, str])
def test_ids_and_sizes_as_text_or_with_a_point_are_the_same_numbers(tmp_path: Path, kind: type) -> None:
    expected = read(tmp_path, coco_content("train2017"), masks=False)
    content = coco_content("train2017")
    for image in content["images"]:
        image |= {key: kind(image[key]) for key in ("id", "height", "width") if kind is float or key == "id"}
    for each in content["annotations"][::2]:
        each |= {key: kind(each[key]) for key in ("id", "image_id", "category_id")}
    assert read_coco_again(tmp_path, content).images == expected.images


def test_ids_that_are_words_stay_words(tmp_path: Path) -> None:
    content = coco_content("train2017")
    for entry, key in [
        *((image, "id") for image in content["images"]),
        *((a, "image_id") for a in content["annotations"]),
    ]:
        entry[key] = f"image-{entry[key]}"
    images = read(tmp_path, content)
    assert images.images[0].key == "image-100"
    assert [len(image.instances) for image in images.images] == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize("prefix", ["./", "train2017/", "data/coco/train2017/", "set\\train2017\\"])
def test_folders_in_front_of_a_file_name_do_not_hide_the_image(tmp_path: Path, prefix: str) -> None:
    write_coco(tmp_path, coco_content("train2017"), "train2017")
    content = coco_content("train2017")
    for image in content["images"]:
        image["file_name"] = prefix + image["file_name"]
    file = tmp_path / "annotations" / "instances_train2017.json"
    file.write_text(json.dumps(content))
    images = read_coco(file, tmp_path / "train2017", masks=False)
    assert [image.file.resolve() for image in images.images] == sorted((tmp_path / "train2017").glob("*.jpg"))


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_photograph_annotated_as_it_is_stored_is_decoded_as_it_is_stored(tmp_path: Path, orientation: int) -> None:
    content = coco_content("train2017", number=1)
    images = read(tmp_path, content)
    stored = images.decode(0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = images.images[0].file
    content_of_file, header = file.read_bytes(), exif.tobytes()
    segment = b"\xff\xe1" + (len(header) + 2).to_bytes(2, "big") + header
    file.write_bytes(content_of_file[:2] + segment + content_of_file[2:])
    assert decode(file.read_bytes()).shape == (3, 64, 48)  # upright
    torch.testing.assert_close(images.decode(0), stored, rtol=0, atol=0)
    content["images"][0] |= {"height": 64, "width": 48}
    upright = read_coco_again(tmp_path, content)
    torch.testing.assert_close(upright.decode(0), decode(file.read_bytes()), rtol=0, atol=0)


def read_coco_again(root: Path, content: dict[str, Any]) -> DetectionSet:
    file = root / "annotations" / "instances_train2017.json"
    file.write_text(json.dumps(content))
    return read_coco(file, root / "train2017", masks=False)


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
        case "crowd":
            annotations[1]["iscrowd"] = "maybe"
            return content, r"has 1 annotation whose iscrowd is neither 0 nor 1 \(annotation 2\)"
        case "half an id":
            annotations[1]["category_id"] = 3.5
            return content, r"1 of \d+ entries of annotations lack one of .*category_id \(whole number\).* number 1\)"
        case "one file for two names":
            images[0]["file_name"] = "a/" + images[1]["file_name"]
            return (
                content,
                r"2 file names of .* refer to the same file as another \(the first: a/train2017_1.jpg, train",
            )
        case "area":
            annotations[0]["area"] = [1]
            return content, r"has 1 annotation whose area is not a number \(annotation 1\)"
        case "endless box":
            annotations[1]["bbox"] = [1, 2, 10**400, 4]
            return content, r"has 1 annotation whose bbox is not four finite numbers"
        case "absolute name":
            images[1]["file_name"] = "/etc/hostname"
            return content, r"1 file names lead outside .* \(the first: /etc/hostname\)"
        case "climbing name":
            images[1]["file_name"] = "../train2017/" + images[1]["file_name"]
            return content, r"1 file names lead outside"
        case "image twice":
            images.append(dict(images[0]))
            return content, r"has 1 image whose id occurs more than once \(image 100\)"
        case "annotation twice":
            annotations.append(dict(annotations[0]))
            return content, r"has 1 annotation whose id occurs more than once \(annotation 1\)"
        case "keys":
            del images[1]["height"]
            return (
                content,
                r"1 of 6 entries of images lack one of id \(number or text\), file_name .* number 1\)",
            )
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
    "crowd",
    "half an id",
    "one file for two names",
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
    with pytest.raises(ValueError, match="there is no image folder"):
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
