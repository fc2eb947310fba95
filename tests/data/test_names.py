import os

import pytest

from sslight.data.names import NameTable, printable


def test_names_come_back_as_they_went_in() -> None:
    names = ["a", "", "grün/猫.jpg", os.fsdecode(b"\xff.jpg"), "a"]
    table = NameTable(names)
    assert [table[index] for index in range(len(table))] == names
    for index in (-1, 5):
        with pytest.raises(IndexError):
            table[index]


def test_printable_names_can_be_written_anywhere() -> None:
    assert printable(os.fsdecode(b"a\xff.jpg")).encode("utf-8").decode() == "a�.jpg"
