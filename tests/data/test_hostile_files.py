"""Damaged and forged files of images and their indices are read, left out, or refused with a sentence."""

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sslight.data import UnreadableImage, build_source, decode
from sslight.data.sources.h5.index import h5_index_path, write_h5_index
from sslight.data.sources.names import NameTable
from sslight.data.sources.tables import Table, read_table, write_table
from tests.data.mutations import mutated
from tests.data.pictures import jpeg


def write_h5(path: Path, *, chunked: bool = False, newest: bool = False) -> Path:
    options = {"chunks": (256,), "compression": "gzip"} if chunked else {}
    with h5py.File(path, "w", libver="latest" if newest else None) as file:
        for name in ("a", "b"):
            group = file.create_group(name)
            for number in range(3):
                group.create_dataset(f"{number}.jpg", data=np.frombuffer(jpeg(number), np.uint8), **options)
    return path


def outcome_of(read: Callable[[Path], str], path: Path) -> str:
    """What ``read`` returns in a process of its own, or ``refused`` for a sentence; fails if it crashes or hangs."""
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def work() -> None:
        try:
            sender.send(read(path))
        except ValueError as error:
            sender.send("refused" if str(error) and "\n" not in str(error) else f"no sentence: {error!r}")
        except BaseException as error:
            sender.send(f"{type(error).__name__}: {error}")

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    sender.close()
    try:
        result = receiver.recv() if receiver.poll(60) else "hangs"
    except EOFError:
        process.join(10)
        result = f"crashes ({process.exitcode})"
    process.kill()
    process.join()
    return str(result)


def read_images(path: Path) -> str:
    source = build_source([str(path)], labeled=True)
    unreadable = 0
    for index in range(len(source)):
        try:
            decode(source.read(index))
        except (UnreadableImage, OSError):
            unreadable += 1
    return "read in part" if unreadable else "read"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def check_h5_mutations(folder: Path, number: int) -> Counter[str]:
    originals = [
        write_h5(folder / f"{chunked}-{newest}.h5", chunked=chunked, newest=newest).read_bytes()
        for chunked in (False, True)
        for newest in (False, True)
    ]
    found: Counter[str] = Counter()
    for seed in range(number):
        path = folder / "mutated.h5"
        path.write_bytes(mutated(originals[seed % len(originals)], seed))
        found[outcome_of(read_images, path)] += 1
    assert set(found) == {"read", "read in part", "refused"}, found
    return found


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_mutated_h5_files_are_read_or_refused(tmp_path: Path) -> None:
    check_h5_mutations(tmp_path, 24)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_hundred_mutated_h5_files_are_read_or_refused(tmp_path: Path) -> None:
    print(check_h5_mutations(tmp_path, 200))


def index_with(names: list[str], num_bytes: int, **arrays: Any) -> Table:
    return Table({"num_bytes": num_bytes, "classes": {"a": len(names)}}, NameTable(names).arrays() | arrays)


@pytest.mark.parametrize("link", ["external", "soft"])
def test_a_forged_index_cannot_have_links_of_an_h5_file_followed(tmp_path: Path, link: str) -> None:
    write_h5(tmp_path / "secret.h5", chunked=True)
    path = write_h5(tmp_path / "set.h5", chunked=True)
    with h5py.File(path, "a") as file:
        target = h5py.ExternalLink("secret.h5", "b/2.jpg") if link == "external" else h5py.SoftLink("/b/2.jpg")
        file["a"]["9.jpg"] = target
    with pytest.raises(ValueError, match=r"a/9.jpg is a link, and links are not followed"):
        build_source([str(path)], labeled=False)
    names = ["a/9.jpg"]
    nowhere = {"offsets": np.array([-1]), "sizes": np.array([0])}
    write_table(h5_index_path(path), index_with(names, path.stat().st_size, **nowhere))
    try:
        source = build_source([str(path)], labeled=False)
    except ValueError as error:
        assert "not followed" in str(error)  # noqa: PT017 - the index may also be disbelieved
    else:
        with pytest.raises(UnreadableImage, match="links are not followed"):
            source.read(0)


def test_datasets_that_keep_their_bytes_elsewhere_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(jpeg())
    write_h5(tmp_path / "other.h5")
    path = tmp_path / "set.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("a")
        size = len(jpeg())
        group.create_dataset("0.jpg", (size,), np.uint8, external=[(str(tmp_path / "secret"), 0, size)])
        layout = h5py.VirtualLayout((size,), np.uint8)
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "a/0.jpg", (size,))
        group.create_virtual_dataset("1.jpg", layout)
    source = build_source([str(path)], labeled=False)
    for index in range(2):
        with pytest.raises(UnreadableImage, match="keeps its bytes in another file"):
            source.read(index)


FORGED: dict[str, dict[str, Any]] = {
    "small numbers": {"offsets": np.array([1] * 6, np.uint8), "sizes": np.array([1] * 6, np.uint8)},
    "too few": {"offsets": np.array([1]), "sizes": np.array([1])},
    "outside": {"offsets": np.array([2**62] * 6), "sizes": np.array([2**62] * 6)},
    "negative": {"offsets": np.array([-9] * 6), "sizes": np.array([9] * 6)},
    "ends that go back": {"ends": np.array([200, 100, 7, 8, 9, 48], np.uint8)},
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_index_with_numbers_that_do_not_fit_is_not_believed(tmp_path: Path, kind: str) -> None:
    path = write_h5(tmp_path / "set.h5")
    write_h5_index(path)
    table = read_table(h5_index_path(path))
    assert table is not None
    write_table(h5_index_path(path), Table(table.head, table.arrays | FORGED[kind]))
    source = build_source([str(path)], labeled=False)
    assert [source.read(index) for index in range(6)] == [jpeg(number) for number in (0, 1, 2) * 2]


@pytest.mark.parametrize("classes", [{"a": 10**30}, {"a": 99, "b": -93}, {"a": "x"}, {"a": 6, "b": 0}, [], 3])
def test_a_forged_index_with_other_classes_is_not_believed(tmp_path: Path, classes: Any) -> None:
    path = write_h5(tmp_path / "set.h5")
    write_h5_index(path)
    table = read_table(h5_index_path(path))
    assert table is not None
    write_table(h5_index_path(path), Table({**table.head, "classes": classes}, table.arrays))
    source = build_source([str(path)], labeled=True)
    assert source.classes == ("a", "b")


def test_an_index_is_not_awaited_from_a_pipe(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "set.h5")
    os.mkfifo(h5_index_path(path))
    assert len(build_source([str(path)], labeled=False)) == 6
