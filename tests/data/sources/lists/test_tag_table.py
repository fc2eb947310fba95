"""Tables of several labels an image: read by name, and refused in a sentence."""

import json
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
    path = write(tmp_path, "image;red;round\n001;1;0\n\nother.jpg;1;1\n000.jpg;0;1\n001.jpg;1;0\n")
    found = read_tags(source, path, "data.train")
    assert found.classes == ("red", "round")
    assert found.tags.tolist() == [[0, 1], [1, 0]]
    assert list(found.source.unmatched) == ["other.jpg"]
    assert found.separator is None


@pytest.mark.parametrize(("no", "yes"), [("0", "1"), ("0.0", "1.0"), ("False", "True"), ("no", "Yes"), ("0", "TRUE")])
def test_columns_hold_truths_as_programs_write_them(
    no: str, yes: str, tmp_path: Path, image_folder: Callable[..., Path]
) -> None:
    source = FolderSource(image_folder("images", each=2), labeled=False)
    path = write(tmp_path, f"n,a,b,c\n000,{no},{yes},1\n001,{yes},{yes},0\n")
    assert is_tag_table(path, "data.labels")
    assert read_tags(source, path, "data.train").tags.tolist() == [[0, 1, 1], [1, 1, 0]]


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("n,a,b\nx,0,1\n", True),
        ("n,a\nx,1\n", False),
        ("n,a,b\nx,0,2\n", False),
        ("n,a,b\nx,0,\n", False),
        ("n,label,b\nx,0,1\n", False),
        ("n,a,Label\nx,0,1\n", False),
    ],
)
def test_two_columns_or_other_values_or_a_column_of_classes_are_no_tags(
    text: str, is_one: bool, tmp_path: Path
) -> None:
    assert is_tag_table(write(tmp_path, text), "data.labels") is is_one


@pytest.mark.parametrize(
    ("written", "mark"),
    [
        (lambda labels: ";".join(labels), ";"),
        (lambda labels: "|".join(labels), "|"),
        (lambda labels: f'"{", ".join(labels)}"', ","),
        (lambda labels: f' "{" , ".join([*labels, ""])}"', ","),
        (lambda labels: '"' + json.dumps(labels).replace('"', '""') + '"', ""),
        (lambda labels: f'"{labels}"', ""),
        (lambda labels: f'"{tuple(labels)}"', ""),
        (lambda labels: f'"{set(labels)}"', ""),
    ],
)
def test_lists_in_one_column_give_an_image_several_labels(
    written: Callable[[list[str]], str], mark: str, tmp_path: Path, image_folder: Callable[..., Path]
) -> None:
    source = FolderSource(image_folder("images", each=3), labeled=False)
    lists = {"000": ["wet", "a cat"], "001": ["grün"], "002": ["a cat", "dry", "dry"]}
    rows = "".join(f"{name},{written(labels)}\n" for name, labels in lists.items())
    found = read_tags(source, write(tmp_path, f"name,labels\n{rows}"), "data.train")
    assert found.classes == ("a cat", "dry", "grün", "wet")
    assert found.tags.tolist() == [[1, 0, 0, 1], [0, 0, 1, 0], [1, 1, 0, 0]]
    assert found.separator == mark


@pytest.mark.parametrize(("none", "empty"), [("[]", ""), ("[]", "nan"), ("()", "NaN"), ("set()", "")])
def test_no_label_applies_is_another_thing_than_no_label_yet(
    none: str, empty: str, tmp_path: Path, image_folder: Callable[..., Path]
) -> None:
    source = FolderSource(image_folder("images", each=3), labeled=False)
    path = write(tmp_path, f"name,label,order\n002,cat;wet,1\n000,{none},2\n001,{empty},3\n")
    found = read_tags(source, path, "data.train", only_labeled=True)
    assert found.tags.tolist() == [[0, 0], [1, 1]]
    assert found.source.indices.tolist() == [0, 2]
    with pytest.raises(ValueError, match=r"no label for 1 of the 3 .*first: 001\.jpg.*data\.subset=labeled$"):
        read_tags(source, path, "data.train", only_labeled=False)


def test_a_cell_that_is_a_known_label_is_not_split(tmp_path: Path, image_folder: Callable[..., Path]) -> None:
    source = FolderSource(image_folder("images", each=2), labeled=False)
    path = write(tmp_path, 'name,labels\n000,"cat, big"\n001,dog\n')
    assert read_tags(source, path, "data.val", known=("cat, big", "dog", "wet")).classes == ("cat, big", "dog")
    assert read_tags(source, path, "data.val").classes == ("big", "cat", "dog")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("n,a,b\n000,0,1\n000.jpg,1,1\n001,1,1\n", r"labels 000\.jpg b and a;b; keep one"),
        ("n,a,b\n000,0,1\n000.jpg,0,0\n001,1,1\n", r"labels 000\.jpg b and \[\]; keep one"),
        ("n,t\n000,a;b\n000,a\n001,b\n", "labels 000 a;b and a; keep one"),
        ("n,a,b\n000,0,1\n", r"has no label for 1 of the 2 images of data\.train \(first: 001.jpg\)"),
        ("n,a,b\n000,0\n", r"has rows of different lengths \(line 2\)"),
        (f"n,a,b\n000,0,{'1' * 200_000}\n", "is not a table of separated values"),
        ("n,a,a\n000,0,1\n001,1,1\n", "must start with a header line of different headings"),
        ("001,1,0\n000,0,1\n", "must start with a header line of different headings"),
        ("n,a,b\n000,0,7\n", r"has 3 columns; .* give 0 and 1 in all columns after the names \(b has 7 for 000\)"),
        ("n,a,b\n000,0,\n", r"has 3 columns; .* give 0 and 1 in all columns .* \(b has nothing for 000\)"),
        ("n,a,label\n000,0,1\n", "has neither lists of labels, .* nor columns of 0 and 1 with none headed label"),
        ("n,t\n000,a cat\n001,b\n", "has neither lists of labels, such as cat;wet, nor"),
        (
            'n,t\n000,"[""a"", b]"\n001,b\n',
            r'has \["a", b\] for 000, which is no list with commas .*; write it as \["cat", "wet"\]',
        ),
        (
            "n,t\n000,['a' 'b']\n001,['b']\n",
            r"has \['a' 'b'\] for 000, which is no list with commas between its labels",
        ),
        ("n,t\n000,\"{'a' 'b', 'c'}\"\n001,b\n", "which is no list with commas"),
        ('n,t\n000,"{""a"": 1}"\n001,b\n', "which is no list"),
        (
            "n,label\n",
            "labels none of the images of data.train yet: add rows about them, or fill in its column of labels",
        ),
        ("", "is empty; give a table with lines NAME,LABEL, or with a heading and a column of 0 and 1 for each label"),
        ('n,t\n000,"[""\\ud800""]"\n001,b\n', "which is no list"),
        (f"n,t\n000,{'[' * 100_000}\n001,b\n", "which is no list"),
    ],
)
def test_a_wrong_table_is_refused(text: str, sentence: str, tmp_path: Path, image_folder: Callable[..., Path]) -> None:
    source = FolderSource(image_folder("images", each=2), labeled=False)
    with pytest.raises(ValueError, match=f"^data.labels=.*{sentence}"):
        read_tags(source, write(tmp_path, text), "data.train")


def test_a_name_in_parentheses_and_lists_in_quotes_are_not_taken_for_each_other(
    tmp_path: Path, image_folder: Callable[..., Path]
) -> None:
    source = FolderSource(image_folder("images", each=3), labeled=False)
    path = write(tmp_path, 'name,labels\n000,(young) cat;wet\n001,"[\'a cat\' , ""it\'s""]"\n002,"(1, 2)"\n')
    assert read_tags(source, path, "data.train").classes == ("(young) cat", "1", "2", "a cat", "it's", "wet")
