import os
from pathlib import Path

import numpy as np
import pytest

from sslight.data import ConcatSource, Source, SubsetSource, build_source, labeled_rows
from tests.data.mutations import mutated
from tests.data.pictures import write_class_folders


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_class_folders(tmp_path / "pool", {"": 4})


def labeled(root: Path, table: str | bytes, column: str | None = None) -> Source:
    file = root.parent / "labels.csv"
    file.write_bytes(table if isinstance(table, bytes) else table.encode())
    return build_source([str(root)], labeled=True, labels=str(file), labels_column=column)


@pytest.mark.parametrize("heading", ["", "file,class\n"])
@pytest.mark.parametrize(("separator", "ending"), [(",", "\n"), (";", "\r\n"), ("\t", "\n")])
def test_a_table_of_two_columns_gives_the_classes(root: Path, heading: str, separator: str, ending: str) -> None:
    text = f"{heading}000.jpg,dog\n./001.jpg,cat\n002,dog\n{root}/003.jpg,a cow\nelsewhere.jpg,horse\n"
    for mark in ("", "\ufeff"):
        source = labeled(root, mark + text.replace(",", separator).replace("\n", ending))
        assert source.classes == ("a cow", "cat", "dog")
        assert source.labels is not None
        assert source.labels.tolist() == [2, 1, 2, 0]
        assert (source.name(1), len(source)) == ("001.jpg", 4)
        assert source.read(0) == (root / "000.jpg").read_bytes()


def test_labels_may_be_numbers_and_stand_in_a_column_by_its_heading(root: Path) -> None:
    table = "id,image_id,sex,dx\n" + "".join(f"{n},00{n},f,{n % 2}\n" for n in range(4))
    source = labeled(root, table, "dx")
    assert source.classes == ("0", "1")
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, 0, 1]
    with pytest.raises(ValueError, match=r"has 4 columns; set data.labels_column to .*: id, image_id, sex, dx"):
        labeled(root, table)
    with pytest.raises(
        ValueError, match=r"data.labels_column=DX is not the heading of a single column .*: the headings are id,"
    ):
        labeled(root, table, "DX")


@pytest.mark.parametrize("heading", ["label", "Label", "LABEL"])
def test_a_column_headed_label_needs_no_name(heading: str, root: Path) -> None:
    source = labeled(root, f"name,sharp,{heading}\n" + "".join(f"00{n},1,{n % 2}\n" for n in range(4)))
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, 0, 1]
    with pytest.raises(ValueError, match=r"has 3 columns; set data\.labels_column"):
        labeled(root, f"name,label,{heading.title()}\n000,0,1\n")


def test_a_table_beats_folders_and_labels_joined_sets(tmp_path: Path) -> None:
    roots = [write_class_folders(tmp_path / name, {"a": 1, "b": 1}) for name in ("x", "y")]
    table = tmp_path / "labels.csv"
    table.write_text("x/a/000.jpg,1\nx/b/000.jpg,2\ny/a/000.jpg,2\ny/b/000.jpg,1\n")
    source = build_source([str(root) for root in roots], labeled=True, labels=str(table))
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, 1, 0]
    plain = build_source([str(root) for root in roots], labeled=False, labels=str(table))
    assert isinstance(plain, ConcatSource)
    assert plain.labels is None


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("000.jpg,a\n001.jpg,b\n002.jpg,b\n", r"no label for 1 of the 4 images of data.train \(first: 003.jpg\)"),
        ("000.jpg,a\n000.jpg,b\n", "labels 000.jpg a and b; keep one"),
        ("", "is empty; give a table with lines NAME,LABEL"),
        ("name,label\n", "labels none of the images of data.train yet: add rows about them, or fill in its column"),
        ("000.jpg,a\n\n ,\n001.jpg,a,b\n", r"rows of different lengths \(line 4\)"),
        (b"PK\3\4\0\0", "is not a text file in UTF-8 or UTF-16; give a table"),
        ("000.jpg,a\n".encode("utf-32"), "is not a text file in UTF-8 or UTF-16"),
        ("000.jpg,a\n".encode("utf-16") + b"x", "is not a text file in UTF-8 or UTF-16"),
        ("000.jpg,caf\xe9\n".encode("latin-1"), r"is not UTF-8 text \(caf\\xe9\); save it as UTF-8"),
        ("caf\xe9.jpg,a\n".encode("latin-1"), r"is not UTF-8 text \(caf\\xe9\.jpg\); save it as UTF-8"),
        (
            "x/000.jpg,a\nx/001.jpg,b\n",
            r"has 2 rows with a label, all of no image of data\.train \(first: x/000\.jpg\): a name is that in the "
            r"folder, such as 000\.jpg",
        ),
        (
            "000.jpg,a\nx/001.jpg,b\n",
            r"for 3 of the 4 images of data\.train \(first: 001\.jpg\), and 1 of its rows name none of them \(first: "
            r"x/001\.jpg; a name is that in the folder, such as 000\.jpg\); add rows about them",
        ),
        ("name,cat,wet\n", "has a single line, its headings: add rows about the images"),
        (
            "name,cat,size,wet\n000,1,big,0\n001,0,,0\n",
            r"has 4 columns; set data\.labels_column to the column of labels: name, cat, size, wet; or, for several "
            r"labels an image, give 0 and 1 in all columns after the names \(size has big for 000\)",
        ),
    ],
)
def test_a_wrong_table_is_explained(root: Path, table: str | bytes, words: str) -> None:
    with pytest.raises(ValueError, match=rf"^data.labels=.*labels.csv .*{words}"):
        labeled(root, table)


@pytest.mark.parametrize(
    ("setting", "named"),
    [("data.val", "data.val_labels"), ("probe.train", "data.labels"), ("data.train", "data.labels")],
)
def test_errors_name_the_setting_of_the_table(root: Path, setting: str, named: str) -> None:
    table = root.parent / "labels.csv"
    table.write_text("000.jpg,a\n")
    with pytest.raises(ValueError, match=rf"^{named}=\S+ has no label for 3 of the 4 images of {setting} "):
        build_source([str(root)], labeled=True, labels=str(table), setting=setting)


def test_a_missing_table_is_named(root: Path) -> None:
    with pytest.raises(ValueError, match=r"data.labels=\S+nowhere.csv cannot be read \(No such file"):
        build_source([str(root)], labeled=True, labels=str(root / "nowhere.csv"))


def test_damaged_tables_give_labels_or_a_sentence(root: Path) -> None:
    others = b"".join(b"another-picture-%d.jpg,c0\n" % number for number in range(30))  # may be damaged at no loss
    whole = b"name,label\n" + others + b"".join(b'"00%d.jpg",c%d\n' % (n, n % 2) for n in range(4))
    reasons, readable = [], 0
    for seed in range(60):
        try:
            labels = labeled(root, mutated(whole, seed)).labels
        except ValueError as error:
            reasons.append(str(error))
        else:
            readable += 1
            assert labels is not None
            assert labels.dtype == np.int64
    assert readable
    assert reasons
    assert not any("\n" in reason for reason in reasons)


def test_of_more_columns_the_one_headed_label_is_taken_and_an_empty_field_is_no_label(root: Path) -> None:
    table = "name,label,order\n003.jpg,dog,1\n000.jpg,cat,2\n002.jpg,,3\n"
    file = root.parent / "labels.csv"
    file.write_text(table)
    source = build_source([str(root)], labeled=True, labels=str(file), only_labeled=True)
    assert [source.name(index) for index in range(len(source))] == ["000.jpg", "003.jpg"]
    assert (source.classes, source.labels.tolist() if source.labels is not None else None) == (("cat", "dog"), [0, 1])
    known, unmatched = labeled_rows(build_source([str(root)], labeled=False), str(file), "labeled")
    assert (known.tolist(), unmatched) == ([0, 3], [])
    with pytest.raises(ValueError, match=r"no label for 2 of the 4 .* \(first: 001.jpg\).* of data.train$"):
        build_source([str(root)], labeled=True, labels=str(file))
    with pytest.raises(ValueError, match=r"or use only those that have one: data\.subset=labeled$"):
        build_source([str(root)], labeled=True, labels=str(file), only_labeled=False)
    file.write_text("name,label,order\n003.jpg,,1\n")
    with pytest.raises(ValueError, match=r"labels none of the images of data\.train yet"):
        build_source([str(root)], labeled=True, labels=str(file), only_labeled=True)


def test_a_list_of_names_labels_them_all(root: Path) -> None:
    file = root.parent / "labeled.txt"
    file.write_text("name\n001.jpg\n003\nelsewhere.jpg\n")
    known, unmatched = labeled_rows(build_source([str(root)], labeled=False), str(file), "labeled")
    assert (known.tolist(), unmatched) == ([1, 3], ["elsewhere.jpg"])
    file.write_text("elsewhere.jpg\n")
    with pytest.raises(
        ValueError, match=r"^labeled=.*labeled\.txt gives a label to none of the 4 images; give a table"
    ):
        labeled_rows(build_source([str(root)], labeled=False), str(file), "labeled")


@pytest.mark.parametrize("label", ["cat;wet", "cat|wet", '"cat, wet"', '"[""cat"", ""wet""]"', "['cat']"])
def test_a_label_that_looks_like_a_list_is_a_class_only_if_that_is_said(root: Path, label: str) -> None:
    table = f"name,label\n000,{label}\n" + "".join(f"00{n},cat\n" for n in (1, 2, 3))
    with pytest.raises(
        ValueError, match=r"labels\.csv: 1 of 4 labels look like several \(first: .*; set data\.multi_label"
    ):
        labeled(root, table)
    source = build_source([str(root)], labeled=True, labels=str(root.parent / "labels.csv"), multi_label=False)
    assert source.classes is not None
    assert len(source.classes) == 2


def test_spaces_blank_rows_and_a_row_that_is_there_twice_make_no_class(root: Path) -> None:
    source = labeled(root, "\n,\n000, cat \n001,cat\n\n000.jpg,cat\n,\n  \n002,dog\n003,dog\xa0\n")
    assert source.classes == ("cat", "dog")
    assert source.labels is not None
    assert source.labels.tolist() == [0, 0, 1, 1]


def test_the_separator_is_the_one_with_which_rows_are_of_one_length(root: Path) -> None:
    table = "name,label\n" + "".join(f'00{n},"a;b;c, d"\n' for n in range(4))
    file = root.parent / "labels.csv"
    file.write_text(table.partition("\n")[2])  # without a heading, the first line has more semicolons than commas
    source = build_source([str(root)], labeled=True, labels=str(file), multi_label=False)
    assert source.classes == ("a;b;c, d",)
    assert labeled(root, "".join(f"00{n};{n},5\n" for n in range(4)).replace(",5", "")).classes == ("0", "1", "2", "3")


def test_names_of_no_image_are_kept_for_a_note_also_that_of_the_first_line(root: Path) -> None:
    file = root.parent / "labels.csv"
    file.write_text("00O.jpg,cat\n001.jpg,dog\nwo,dog\n,dog\nelsewhere,\n")
    source = build_source([str(root)], labeled=True, labels=str(file), only_labeled=True)
    assert isinstance(source, SubsetSource)
    assert list(source.unmatched) == ["00O.jpg", "wo", ""]
    assert source.indices.tolist() == [1]


def test_a_name_that_is_no_utf8_is_found_as_it_is_and_as_results_write_it(root: Path) -> None:
    (root / "000.jpg").rename(root / os.fsdecode(b"caf\xe9.jpg"))
    rest = b"".join(b"00%d,dog\n" % number for number in (1, 2, 3))
    for name in (b"caf\xe9.jpg", rb"caf\xe9.jpg"):
        source = labeled(root, name + b",cat\n" + rest)
        assert source.labels is not None
        assert source.labels.tolist() == [1, 1, 1, 0]
