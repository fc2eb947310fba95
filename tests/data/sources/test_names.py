import os

import pytest

from sslight.data.sources.names import NameTable, is_utf8, printable


def test_names_come_back_as_they_went_in() -> None:
    names = ["a", "", "grün/猫.jpg", os.fsdecode(b"\xff.jpg"), "a"]
    table = NameTable(names)
    assert [table[index] for index in range(len(table))] == names
    assert table.all_encoded() == [os.fsencode(name) for name in names]
    assert NameTable(table.all_encoded()).all_encoded() == table.all_encoded()
    for index in (-1, 5):
        with pytest.raises(IndexError):
            table[index]


def test_printable_names_can_be_written_anywhere() -> None:
    name = os.fsdecode(b"a\xff\n\x9b.jpg")
    assert printable(name).encode("utf-8").decode() == r"a\xff\n\x9b.jpg"
    assert not is_utf8(name)
    assert is_utf8("grün/猫.jpg")


def test_arrays_give_the_names_again_and_are_checked() -> None:
    table = NameTable(["a", "", "bc"])
    arrays = table.arrays("x_")
    assert NameTable.from_arrays(arrays, "x_").all_encoded() == [b"a", b"", b"bc"]
    for wrong in (
        {},
        {"x_text": arrays["x_text"]},
        arrays | {"x_ends": arrays["x_ends"] + 1},
        arrays | {"x_ends": arrays["x_ends"][::-1]},
        arrays | {"x_ends": arrays["x_ends"][:0]},
    ):
        with pytest.raises(ValueError, match="no table of names"):
            NameTable.from_arrays(wrong, "x_")
