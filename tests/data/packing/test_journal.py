"""A process that dies at any moment leaves the last commit."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from sslight.data.packing.journal import PAGE, JournaledFile


def died(child: Callable[[], None]) -> int:
    """Run ``child`` in a forked process; gives its exit code."""
    process = os.fork()
    if process == 0:
        try:
            child()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def add_groups(folder: Path, number: int) -> None:
    """Go on until there are ``number`` groups of 3 images, with a commit after each."""
    file = JournaledFile(folder / "content", folder / "journal")
    done = 0 if file.state is None else file.state["done"]
    target = h5py.File(file, "r+" if done else "w")
    for group in range(done, number):
        for image in range(3):
            target.create_dataset(f"g{group}/{image}", data=np.full(100 + image, group, np.uint8))
        target.flush()
        file.commit({"done": group + 1})
    target.close()
    file.commit({"done": number})
    file.close()


def check(path: Path, groups: int) -> None:
    with h5py.File(path) as file:
        assert sorted(file) == [f"g{group}" for group in range(groups)]
        for group in range(groups):
            assert len(file[f"g{group}"]) == 3
            for image in range(3):
                assert file[f"g{group}/{image}"][...].tolist() == [group] * (100 + image)


def test_a_process_killed_at_any_write_loses_only_what_was_not_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a process dies here, not the machine
    fatal, interrupted = 1, 0
    while True:
        folder = tmp_path / str(fatal)
        folder.mkdir()

        def child(folder: Path = folder, fatal: int = fatal) -> None:
            count = 0

            def counted(function: Callable[..., object]) -> Callable[..., object]:
                def call(*arguments: object) -> object:
                    nonlocal count
                    count += 1
                    if count == fatal:
                        if function is pwrite:  # half of it arrives
                            pwrite(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2], arguments[2])  # type: ignore
                        os._exit(7)
                    return function(*arguments)

                return call

            pwrite = os.pwrite
            for name in ("pwrite", "ftruncate", "fsync"):
                monkeypatch.setattr(os, name, counted(getattr(os, name)))
            add_groups(folder, 2)
            os._exit(0)

        code = died(child)
        if code == 0:
            break
        assert code == 7
        file = JournaledFile(folder / "content", folder / "journal")
        done = 0 if file.state is None else file.state["done"]
        file.close()
        if done:
            check(folder / "content", done)
            interrupted += 1
        add_groups(folder, 3)
        check(folder / "content", 3)
        fatal += 1
    assert interrupted > 10
    check(folder / "content", 2)


def test_any_writes_and_reads_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    rng = random.Random(0)
    file = JournaledFile(tmp_path / "content", tmp_path / "journal")
    model = bytearray()
    for step in range(600):
        offset = rng.randrange(0, len(model) + 2 * PAGE)
        data = rng.randbytes(rng.choice([1, 10, 1000, PAGE, 3 * PAGE + 5]))
        match rng.randrange(8):
            case 0:
                file.commit({"step": step})
                assert (tmp_path / "content").read_bytes() == model
            case 1:
                size = rng.randrange(0, len(model) + PAGE)
                file.truncate(size)
                model[size:] = b""
                model.extend(bytes(size - len(model)))
            case 2 | 3 if model:
                file.seek(offset % len(model))
                buffer = bytearray(min(len(data), len(model) - file.tell()))
                start = file.tell()
                assert file.readinto(memoryview(buffer)) == len(buffer)
                assert buffer == model[start : start + len(buffer)]
            case _:
                file.seek(offset)
                file.write(memoryview(data))
                model.extend(bytes(max(0, offset + len(data) - len(model))))
                model[offset : offset + len(data)] = data
        assert file.seek(0, os.SEEK_END) == len(model)
    file.commit({})
    file.close()
    assert (tmp_path / "content").read_bytes() == model


def test_a_file_that_lost_its_end_is_refused(tmp_path: Path) -> None:
    add_groups(tmp_path, 1)
    os.truncate(tmp_path / "content", 100)
    with pytest.raises(ValueError, match=r"content is shorter than .*journal says; remove .* and start again"):
        JournaledFile(tmp_path / "content", tmp_path / "journal")


def test_what_is_written_after_giving_up_has_no_effect(tmp_path: Path) -> None:
    add_groups(tmp_path, 1)
    before = (tmp_path / "content").read_bytes()
    file = JournaledFile(tmp_path / "content", tmp_path / "journal")
    target = h5py.File(file, "r+")
    target["g9/0"] = np.zeros(5, np.uint8)
    file.abandon()
    target.close()
    file.close()
    assert (tmp_path / "content").read_bytes() == before
