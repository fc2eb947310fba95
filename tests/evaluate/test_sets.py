"""The labeled images of an evaluation: what is said of them, and what is refused."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sslight.config import EvaluateSettings, FinetuneSettings, build
from sslight.evaluate.sets import LabeledSets, build_sets

Folder = Callable[..., Path]


def sets(protocol: str | None = None, **data: Any) -> LabeledSets:
    """Of fine-tuning, or of a protocol."""
    if protocol is None:
        return build_sets(build(FinetuneSettings, {"data": data}, model="x"))
    return build_sets(build(EvaluateSettings, {"data": data}, protocol=protocol, model="x"))


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("protocol", [None, "knn", "linear", "semi"])
@pytest.mark.parametrize("val", ["train", "train/", "./train", "sub/../train", "{tmp}/train", "link"])
def test_a_folder_for_both_sets_is_noticed_in_every_spelling(
    protocol: str | None, val: str, tmp_path: Path, image_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_folder("train", classes=("a", "b"), each=3)
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("train")
    monkeypatch.chdir(tmp_path)
    found = sets(protocol, train="train", val=val.replace("{tmp}", str(tmp_path)))
    assert found.notes == ["6 images of data.val are also in data.train, so the accuracy is too high."]


def test_a_part_of_the_training_set_is_noticed_and_other_images_of_the_same_names_are_not(
    tmp_path: Path, image_folder: Folder
) -> None:
    train = image_folder("train", classes=("a", "b"), each=3)
    other = image_folder("other", classes=("a", "b"), each=3)
    (other / "b").rename(tmp_path / "b")
    (other / "b").symlink_to(train / "b")
    assert sets(train=str(train), val=str(other)).notes == [
        "3 images of data.val are also in data.train, so the accuracy is too high."
    ]
    (other / "b").unlink()
    (tmp_path / "b").rename(other / "b")
    assert sets(train=str(train), val=str(other)).notes == []
    assert sets(train="synthetic:20", val="synthetic:20:val").notes == []
    assert sets(train="synthetic:20", val="synthetic:10").notes == [
        "10 images of data.val are also in data.train, so the accuracy is too high."
    ]


def test_names_that_no_image_has_are_counted_for_each_table_and_once_if_it_serves_both_sets(
    tmp_path: Path, image_folder: Folder
) -> None:
    train, val = (str(image_folder(name, each=2)) for name in ("train", "val"))
    rows = "".join(f"{folder}/00{n}.jpg,{'ab'[n]}\n" for folder in (train, val) for n in (0, 1))
    both = write(tmp_path, "both.csv", f"{rows}gone.jpg,a\n")
    assert sets(train=train, val=val, labels=both, val_labels=both).notes == [
        f"1 of 5 labeled names in {both} has no image in data.train and data.val (first: gone.jpg; a name there is "
        "000.jpg)."
    ]
    own = write(tmp_path, "own.csv", "000,a\n001,b\n")
    more = write(tmp_path, "more.csv", "000,a\n001,b\nx.jpg,c\ny.jpg,b\n")
    assert sets(train=train, val=val, labels=own, val_labels=more, subset="labeled").notes == [
        f"2 of 4 labeled names in {more} have no image in data.val (first: x.jpg; a name there is 000.jpg)."
    ]
    wrong = write(tmp_path, "wrong.csv", "000,a\n00l.jpg,b\n001,c\n")
    with pytest.raises(
        ValueError, match=r"1 of 2 classes are not .*\. 1 of 3 labeled names in \S+wrong\.csv has no image"
    ):
        sets(train=train, val=val, labels=wrong, val_labels=own, subset="labeled")


def test_classes_that_differ_only_in_case_or_spaces_or_the_form_of_accents_are_said(image_folder: Folder) -> None:
    folder = str(image_folder("train", classes=("Cat", "cat", "a cow", "acow", "caf\xe9", "cafe\u0301", "dog"), each=1))
    notes = sets(train=folder, val=folder).notes[1:]
    assert [note.partition(" differ only in case")[0] for note in notes] == [
        "the classes Cat and cat",
        "the classes a cow and acow",
        "the classes cafe\u0301 and caf\xe9",
    ]


def test_a_class_that_is_what_programs_write_for_an_empty_cell_is_said(tmp_path: Path, image_folder: Folder) -> None:
    folder = str(image_folder("train", each=4))
    table = write(tmp_path, "labels.csv", "000,cat\n001,NaN\n002,cat\n003,nan cat\n")
    assert sets(train=folder, val=folder, labels=table, val_labels=table).notes[1:] == [
        "NaN is a class of the table, but some programs write it for an empty cell; if it is none, empty these cells "
        "and set data.subset=labeled (and leave such images out of data.val)."
    ]


@pytest.mark.parametrize("protocol", [None, "knn"])
def test_a_class_whose_name_is_not_text_is_refused(protocol: str | None, tmp_path: Path, image_folder: Folder) -> None:
    folder = image_folder("train", classes=("a", "b"), each=1)
    (folder / "b").rename(folder / os.fsdecode(b"\xe9"))
    with pytest.raises(ValueError, match=r"^data\.train has the class \\xe9, which is not UTF-8 text: rename it\.$"):
        sets(protocol, train=str(folder), val=str(folder))


def test_lists_of_labels_are_matched_by_name(tmp_path: Path, image_folder: Folder) -> None:
    train, val = (str(image_folder(name, each=3)) for name in ("train", "val"))
    labels = write(tmp_path, "labels.csv", 'name,labels\n000,"wet;a, b"\n001,\n002,cat\n')
    val_labels = write(tmp_path, "val.csv", 'name,labels\n000,"a, b"\n001,cat\n002,[]\n')
    found = sets(train=train, val=val, labels=labels, val_labels=val_labels, multi_label=True, subset="labeled")
    assert found.classes == ("a, b", "cat", "wet")
    assert found.train_labels.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert found.val_labels.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert len(found.train) == 2
    assert found.train_share == pytest.approx(2 / 3)


def test_lists_of_both_sets_may_have_separators_of_their_own(tmp_path: Path, image_folder: Folder) -> None:
    train, val = (str(image_folder(name, each=2)) for name in ("train", "val"))
    labels = write(tmp_path, "labels.csv", 'name,labels\n000,"a, b;wet"\n001,cat\n')
    for cell in ("cat|wet", '"cat, wet"', "\"['cat', 'wet']\""):
        val_labels = write(tmp_path, "val.csv", f'name,labels\n000,{cell}\n001,"a, b"\n')
        found = sets(train=train, val=val, labels=labels, val_labels=val_labels, multi_label=True)
        assert found.classes == ("a, b", "cat", "wet")
        assert found.val_labels.tolist() == [[0, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("labels", "val_labels", "more", "sentence"),
    [
        ("n,t\n000,a;b\n001,b\n", "n,t\n000,a;c\n001,b\n", True, "differ in the labels c: use the same"),
        ("n,a,b\n000,1,0\n001,1,1\n", "n,b,c\n000,1,0\n001,1,1\n", None, "differ in the labels a, c: use the same"),
        ("n,a,b\n000,0,0\n001,0,0\n", "n,a,b\n000,0,0\n001,0,0\n", None, "gives no image of data.train a label"),
        ("n,t\n000,a;a\n001,a\n", "n,t\n000,a\n001,a\n", True, "has only the class a: give images of at least two"),
        ("n,t\n000,[]\n001,[]\n", "n,t\n000,[]\n001,[]\n", True, "has no label at all: give images of at least two"),
        ("n,t\n000,a;b\n001,b\n", None, True, "data.val_labels is not set: data.labels gives several labels"),
        (
            None,
            "n,t\n000,a;b\n001,b\n",
            True,
            "data.multi_label=true needs a table of labels: set data.labels",
        ),
        ("n,a,b\n000,1,0\n001,1,1\n", "n,a,b\n000,1,0\n001,1,1\n", False, "has 3 columns; set data.labels_column"),
    ],
)
def test_tables_of_several_labels_that_do_not_fit_are_refused(
    labels: str | None, val_labels: str | None, more: bool | None, sentence: str, tmp_path: Path, image_folder: Folder
) -> None:
    folder = str(image_folder("train", each=2))
    tables = {"labels": labels, "val_labels": val_labels}
    given = {key: write(tmp_path, f"{key}.csv", text) for key, text in tables.items() if text is not None}
    with pytest.raises(ValueError, match=sentence):
        sets(train=folder, val=folder, multi_label=more, **given)


@pytest.mark.parametrize("protocol", ["knn", "linear", "semi"])
def test_protocols_of_one_class_an_image_refuse_several(protocol: str) -> None:
    with pytest.raises(ValueError, match=r"^data\.multi_label=True would have no effect: only sslight finetune takes"):
        sets(protocol, train="a", val="b", labels="t.csv", multi_label=True)
    with pytest.raises(ValueError, match=r"^data\.multi_label=False would have no effect: no table of labels is given"):
        sets(protocol, train="a", val="b", multi_label=False)


@pytest.mark.parametrize(("text", "sentence"), [(None, r"cannot be read \(No such file.*\); "), ("", "is empty; ")])
def test_a_missing_or_empty_table_is_told_both_forms(
    text: str | None, sentence: str, tmp_path: Path, image_folder: Folder
) -> None:
    folder, table = str(image_folder("train", each=2)), tmp_path / "labels.csv"
    if text is not None:
        table.write_text(text)
    with pytest.raises(
        ValueError, match=f"{sentence}give a table with lines NAME,LABEL, or with a heading and a column"
    ):
        sets(train=folder, val=folder, labels=str(table), val_labels=str(table))
