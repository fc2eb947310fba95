"""Tables with a column for each label: read by name, and refused in a sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sslight.data import FolderSource, is_tag_table, read_tags


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "tags.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_rows_follow_the_images_and_others_are_passed_over(tmp_path: Path, image_folder: Callable[..., Path]) -> None:
    source = FolderSource(image_folder("images", each=2), labeled=False)
    path = write(tmp_path, "image;red;round\n001;1;0\nother.jpg;1;1\n000.jpg;0;1\n")
    classes, tags = read_tags(source, path, "data.labels")
    assert classes == ("red", "round")
    assert tags.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("n,a,b\nx,0,1\n", True),
        ("n,a\nx,1\n", False),
        ("n,a,b\nx,0,2\n", False),
        ("n,label,b\nx,0,1\n", False),
        ("n,a,Label\nx,0,1\n", False),
    ],
)
def test_two_columns_or_other_values_or_a_column_of_classes_are_no_tags(
    text: str, is_one: bool, tmp_path: Path
) -> None:
    assert is_tag_table(write(tmp_path, text), "data.labels") is is_one


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("n,a,b\n000,0,1\n000,0,1\n001,1,1\n", "has two rows about 000: keep one"),
        ("n,a,b\n000,0,1\n", r"has no row about 1 of the 2 images \(first: 001.jpg\)"),
        ("n,a,b\n000,0\n", r"has rows of different lengths \(row 2\)"),
        (f"n,a,b\n000,0,{'1' * 200_000}\n", "is not a table of separated values"),
        ("n,a,a\n000,0,1\n001,1,1\n", "must start with a header line of different headings"),
        ("001,1,0\n000,0,1\n", "must start with a header line of different headings"),
        ("n,a,b\n000,0,7\n", "two or more columns of 0 and 1, none of them headed label: correct the table"),
        ("n,a,label\n000,0,1\n", "two or more columns of 0 and 1, none of them headed label: correct the table"),
    ],
)
def test_a_wrong_table_is_refused(text: str, sentence: str, tmp_path: Path, image_folder: Callable[..., Path]) -> None:
    source = FolderSource(image_folder("images", each=2), labeled=False)
    with pytest.raises(ValueError, match=f"data.labels=.*{sentence}"):
        read_tags(source, write(tmp_path, text), "data.labels")
