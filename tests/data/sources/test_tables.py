import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from sslight.data.sources import tables
from sslight.data.sources.tables import (
    Cached,
    Table,
    cached_file,
    read_table,
    table_from,
    write_table,
)

TABLE = Table(
    {"n": 3, "name": "\udcff"},
    {"a": np.arange(5), "empty": np.empty(0, np.int64), "text": np.frombuffer(b"abc", np.uint8)},
)


def assert_same(first: Table | None, second: Table) -> None:
    assert first is not None
    assert first.head == second.head
    assert {name: array.tolist() for name, array in first.arrays.items()} == {
        name: array.tolist() for name, array in second.arrays.items()
    }


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_table(tmp_path / "t", TABLE)
    assert_same(read_table(tmp_path / "t"), TABLE)


def test_a_table_with_any_byte_changed_or_missing_is_not_read(tmp_path: Path) -> None:
    write_table(tmp_path / "t", TABLE)
    content = (tmp_path / "t").read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 4
        assert table_from(bytes(damaged)) is None
        assert table_from(content[:position]) is None
    assert read_table(tmp_path / "nowhere") is None


def test_of_a_foreign_file_only_the_beginning_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "read_ordinary", lambda path, largest: pytest.fail("it was read whole"))
    for start in (b"", b"sslight table 1\n", b"words", b"\x40" + bytes(7) + b'{"__metadata__":{"format":"np"}}'):
        (tmp_path / "t").write_bytes(start)
        os.truncate(tmp_path / "t", 2**36)
        assert read_table(tmp_path / "t") is None


def test_the_cache_gives_back_what_was_kept_for_the_same_path(tmp_path: Path) -> None:
    Cached("kind", tmp_path, 1).keep(TABLE)
    (tmp_path / "link").symlink_to(tmp_path)
    assert_same(Cached("kind", tmp_path / "link", 1).read(), Table(TABLE.head | {"version": 1}, TABLE.arrays))
    assert Cached("kind", tmp_path, 2).read() is None
    assert Cached("other", tmp_path, 1).read() is None
    assert Cached("kind", tmp_path / "elsewhere", 1).read() is None


def test_a_cache_that_cannot_be_written_keeps_nothing_and_disturbs_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    Cached("kind", tmp_path, 1).keep(TABLE)
    assert Cached("kind", tmp_path, 1).read() is None


def test_what_another_user_left_in_the_cache_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Cached("kind", tmp_path, 1).keep(TABLE)
    somebody = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: somebody)
    assert Cached("kind", tmp_path, 1).read() is None


def test_a_file_changed_within_two_seconds_is_not_kept_and_a_changed_one_not_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    cached_file("kind", path).keep(TABLE)
    assert cached_file("kind", path).read() is None
    monkeypatch.setattr("sslight.data.sources.tables.SETTLED_NS", -(10**12))
    cached_file("kind", path).keep(TABLE)
    found = cached_file("kind", path).read()
    assert found is not None
    assert found.head["n"] == 3
    before = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns - 10**9))
    assert cached_file("kind", path).read() is None


def test_a_table_without_a_version_is_none_of_a_file_without_one(tmp_path: Path) -> None:
    nameless = Cached("kind", tmp_path / "file", None)
    nameless._path.parent.mkdir(parents=True)
    write_table(nameless._path, Table({"file": [1]}, TABLE.arrays))  # as earlier forms of the program wrote them
    assert nameless.read() is None


def test_a_large_table_stays_in_its_file_and_outlives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "SMALLEST_MAPPED", 1)
    monkeypatch.setattr(tables, "read_ordinary", lambda path, largest: pytest.fail("it was copied into memory"))
    write_table(tmp_path / "t", TABLE)
    table = read_table(tmp_path / "t", mapped=True)
    write_table(tmp_path / "t", Table({}, {}))
    assert_same(table, TABLE)
    assert_same(read_table(tmp_path / "t", mapped=True), Table({}, {}))


def test_other_programs_read_a_table_as_the_safetensors_file_that_it_is(tmp_path: Path) -> None:
    write_table(tmp_path / "t", TABLE)
    found = safetensors.numpy.load_file(tmp_path / "t")
    assert {name: array.tolist() for name, array in found.items()} == {
        "a": [0, 1, 2, 3, 4],
        "empty": [],
        "text": [*b"abc"],
    }
