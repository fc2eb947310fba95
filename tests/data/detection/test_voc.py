from pathlib import Path

import pytest

from sslight.data.detection.voc import VOC_CATEGORIES, read_voc
from tests.data.detection_files import voc_object, write_voc


def test_corners_counted_from_one_become_boxes_from_zero(tmp_path: Path) -> None:
    objects = voc_object("cat", (1, 1, 64, 48)) + voc_object("dog", (5, 6, 5, 10), difficult=1)
    images = read_voc(write_voc(tmp_path, 2007, "test", {"000001": objects}), ["2007_test"])
    cat, dog = images.images[0].instances
    assert cat.box == (0, 0, 64, 48)
    assert dog.box == (4, 5, 1, 5)
    assert (cat.difficult, dog.difficult) == (False, True)
    assert images.categories[dog.label] == "dog"
    assert images.images[0].key == "2007/000001"
    assert images.name(0) == "JPEGImages/000001.jpg"


def test_several_years_are_joined(tmp_path: Path) -> None:
    write_voc(tmp_path, 2007, "trainval", {"000005": voc_object("car", (2, 2, 9, 9))})
    write_voc(tmp_path, 2012, "trainval", {"2008_000008": voc_object("horse", (2, 2, 9.5, 9))})  # type: ignore[arg-type]
    images = read_voc(tmp_path, ["2007_trainval", "2012_trainval"])
    assert [image.key for image in images.images] == ["2007/000005", "2012/2008_000008"]
    assert len(VOC_CATEGORIES) == 20


def test_other_names_than_vocs_are_the_categories_of_the_set(tmp_path: Path) -> None:
    objects = {f"{n}": voc_object(name, (2, 2, 9, 9)) for n, name in enumerate(("wolf", "bear", "dog", "wolf"))}
    write_voc(tmp_path, 2007, "trainval", objects)
    images = read_voc(tmp_path, ["2007_trainval"])
    assert images.categories == ("bear", "dog", "wolf")
    assert images.category_keys == (1, 2, 3)
    assert [images.categories[image.instances[0].label] for image in images.images] == ["wolf", "bear", "dog", "wolf"]


def test_a_category_that_the_training_set_has_not_is_named(tmp_path: Path) -> None:
    objects = {f"{number:06}": voc_object("unicorn", (2, 2, 9, 9)) for number in range(5)}
    write_voc(tmp_path, 2007, "test", objects)
    with pytest.raises(
        ValueError, match=r"2007_test has 5 images with a category that .* \(unicorn; the first: 000000, .*are cat, dog"
    ):
        read_voc(tmp_path, ["2007_test"], categories=("cat", "dog"))


def test_photographs_of_any_suffix_are_found(tmp_path: Path) -> None:
    write_voc(tmp_path, 2007, "test", {"1": voc_object("dog", (2, 2, 9, 9))})
    file = tmp_path / "VOC2007" / "JPEGImages" / "1.jpg"
    file.rename(file.with_suffix(".PNG"))
    assert read_voc(tmp_path, ["2007_test"]).images[0].file == file.with_suffix(".PNG")


def test_missing_lists_images_and_annotations_are_named(tmp_path: Path) -> None:
    write_voc(tmp_path, 2007, "test", {"000001": "", "000002": ""})
    with pytest.raises(ValueError, match=r"there is no list .*trainval.txt for the split 2007_trainval"):
        read_voc(tmp_path, ["2007_trainval"])
    (tmp_path / "VOC2007" / "JPEGImages" / "000002.jpg").unlink()
    with pytest.raises(ValueError, match=r"JPEGImages lacks 1 of the 2 files of test.txt \(the first: 000002.jpg\)"):
        read_voc(tmp_path, ["2007_test"])
    (tmp_path / "VOC2007" / "Annotations" / "000001.xml").unlink()
    with pytest.raises(ValueError, match="Annotations lacks 1 of the 2 files"):
        read_voc(tmp_path, ["2007_test"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<annotation>", "no element found"),
        ("<annotation></annotation>", "it has no size/height"),
        (
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation>&x;</annotation>',
            "it has a document type",
        ),
        (
            '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;">]><annotation>&y;</annotation>',
            "it has a document type",
        ),
        (
            "<annotation><size><width>64</width><height>48</height></size>"
            + voc_object("cat", (9, 9, 5, 20))
            + "</annotation>",
            "the box of a cat has no size",
        ),
    ],
)
def test_a_damaged_or_dangerous_file_is_refused(content: str, reason: str, tmp_path: Path) -> None:
    write_voc(tmp_path, 2007, "test", {"000001": ""})
    file = tmp_path / "VOC2007" / "Annotations" / "000001.xml"
    for encoding in ("utf-8", "utf-16"):
        file.write_text(content, encoding=encoding)
        with pytest.raises(ValueError, match=rf"1 files that cannot be read \(the first: 000001.xml: {reason}"):
            read_voc(tmp_path, ["2007_test"])
