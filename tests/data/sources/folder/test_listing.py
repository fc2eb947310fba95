import multiprocessing
import os
import time
import tracemalloc
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from sslight.data.sources.folder.listing import list_images
from sslight.data.sources.names import NameTable
from sslight.data.sources.suffixes import NO_FILE
from sslight.data.sources.tables import is_settled
from tests.data.pictures import write_class_folders


def listed(root: Path) -> list[str]:
    names, _ = list_images(str(root))
    return [names[index] for index in range(len(names))]


def pause() -> None:
    """Longer than a tick of the file system's clock."""
    time.sleep(0.02)


@pytest.fixture(autouse=True)
def every_listing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslight.data.sources.folder.listing.SMALLEST_CACHED", 1)
    monkeypatch.setattr("sslight.data.sources.tables.SETTLED_NS", 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = write_class_folders(tmp_path / "images", {"a": 2, "b/deep": 1})
    pause()
    return folder


@pytest.fixture
def without_listing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[str]]:
    """Lists where no folder may be read."""

    def from_cache(root: Path) -> list[str]:
        def refuse(path: str) -> None:
            raise AssertionError(f"{path} was read")

        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", refuse)
            return listed(root)

    return from_cache


def test_a_second_listing_reads_no_folder_and_is_the_same(
    root: Path, without_listing: Callable[[Path], list[str]]
) -> None:
    first = listed(root)
    assert first == ["a/000.jpg", "a/001.jpg", "b/deep/000.jpg"]
    assert without_listing(root) == first


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda root: (root / "a" / "x.jpg").write_bytes(b"x"),
            ["a/000.jpg", "a/001.jpg", "a/x.jpg", "b/deep/000.jpg"],
        ),
        (lambda root: (root / "b" / "deep" / "000.jpg").unlink(), ["a/000.jpg", "a/001.jpg"]),
        (
            lambda root: (root / "a" / "000.jpg").rename(root / "a" / "9.jpg"),
            ["a/001.jpg", "a/9.jpg", "b/deep/000.jpg"],
        ),
        (lambda root: (root / "b").rename(root / "0"), ["0/deep/000.jpg", "a/000.jpg", "a/001.jpg"]),
        (lambda root: (root / "top.png").write_bytes(b"x"), ["a/000.jpg", "a/001.jpg", "b/deep/000.jpg", "top.png"]),
    ],
)
def test_any_change_in_any_folder_is_seen(root: Path, change: Callable[[Path], object], expected: list[str]) -> None:
    listed(root)
    change(root)
    assert listed(root) == expected


def test_a_change_is_seen_though_the_time_of_the_folder_was_set_back(root: Path) -> None:
    listed(root)
    before = (root / "a").stat()
    (root / "a" / "x.jpg").write_bytes(b"x")
    os.utime(root / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "a/x.jpg" in listed(root)


def test_another_folder_under_the_same_path_is_listed_anew(root: Path, tmp_path: Path) -> None:
    listed(root)
    root.rename(tmp_path / "old")
    write_class_folders(root, {"z": 1})
    assert listed(root) == ["z/000.jpg"]


def test_a_link_to_a_folder_that_leads_elsewhere_is_seen(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "one", {"x": 1})
    write_class_folders(tmp_path / "two", {"y": 1})
    (tmp_path / "now").symlink_to(tmp_path / "one")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "set").symlink_to(tmp_path / "now")
    pause()
    assert listed(tmp_path / "root") == ["set/x/000.jpg"]
    (tmp_path / "now").unlink()
    (tmp_path / "now").symlink_to(tmp_path / "two")  # nothing in the folders that were listed changes
    assert listed(tmp_path / "root") == ["set/y/000.jpg"]


def test_listings_with_links_to_files_are_not_used_again(root: Path, tmp_path: Path) -> None:
    (tmp_path / "target.jpg").write_bytes(b"x")
    (root / "a" / "link.jpg").symlink_to(tmp_path / "target.jpg")
    pause()
    assert "a/link.jpg" in listed(root)
    (tmp_path / "target.jpg").unlink()
    assert "a/link.jpg" not in listed(root)


def test_a_listing_of_a_folder_changed_within_two_seconds_is_not_used_again(
    root: Path, without_listing: Callable[[Path], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sslight.data.sources.tables.SETTLED_NS", 10**12)
    listed(root)
    with pytest.raises(AssertionError, match="was read"):
        without_listing(root)


def test_a_damaged_listing_is_made_again(root: Path, own_cache: Path) -> None:
    first = listed(root)
    [kept] = [path for path in own_cache.rglob("*") if path.is_file()]
    content = bytearray(kept.read_bytes())
    content[-3] ^= 1
    kept.write_bytes(content)
    assert listed(root) == first
    assert kept.read_bytes() != bytes(content)


def test_small_listings_are_not_kept(root: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslight.data.sources.folder.listing.SMALLEST_CACHED", 4)
    listed(root)
    assert not list(own_cache.rglob("*"))


@pytest.mark.parametrize("times", [[0, 0, 0], [10**18, 10**18 + 10**9, 10**18], [0, 10**18, 2 * 10**18]])
def test_times_that_show_nothing_are_not_trusted(times: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert not is_settled([(7, time, time) for time in times], now_ns=3 * 10**18)
    assert is_settled([(7, time, time) for time in (10**18, 10**18 + 3 * 10**9)], now_ns=3 * 10**18)


def test_everything_is_listed_anew_where_the_environment_asks_for_it(
    root: Path, without_listing: Callable[[Path], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = listed(root)
    monkeypatch.setenv("SSLIGHT_LIST_ANEW", "1")
    with pytest.raises(AssertionError, match="was read"):
        without_listing(root)
    assert listed(root) == first
    monkeypatch.setenv("SSLIGHT_LIST_ANEW", "0")
    assert without_listing(root) == first


def test_a_folder_too_large_for_memory_is_listed_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_class_folders(tmp_path / "images", {"b": 2, "b/m": 3})
    odd = [
        "ü.jpg",
        os.fsdecode(b"\xff.jpg"),
        "B.JPG",
        "m-1.jpg",
        "m.jpg",
        "line\nbreak\r.jpg",
        ".hidden.jpg",
        "a.txt",
        "🐈.jpg",
    ]
    for name in odd:
        (folder / "b" / name).write_bytes(b"x")
    (folder / "b" / "link.jpg").symlink_to(folder / "b" / "m.jpg")
    (folder / "b" / "gone.jpg").symlink_to(folder / "nothing")
    whole = list_images(str(folder))
    for largest in (1, 2, 5, 14, 15):
        monkeypatch.setattr("sslight.data.sources.folder.listing.LARGEST_PART", largest)
        parts = list_images(str(folder))
        assert parts[0].all_encoded() == whole[0].all_encoded()
        assert parts[1] == whole[1] == {".txt": 1, "hidden images": 1, NO_FILE: 1}


def test_names_take_no_more_memory_while_they_are_listed_than_their_bytes_and_a_few(tmp_path: Path) -> None:
    NameTable(["warm"])
    tracemalloc.start()
    try:
        table = NameTable(f"n{index % 1000:08d}/n{index % 1000:08d}_{index:06d}" for index in range(20_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / len(table) < 26 + 8 + 12  # twelve: what growing arrays are ahead


@pytest.mark.parametrize("settled_after", [0, 10**12])
def test_of_several_processes_one_lists_and_the_others_take_its_listing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled_after: int
) -> None:
    monkeypatch.setattr("sslight.data.sources.tables.SETTLED_NS", settled_after)
    # Each counts the folders that it reads; reading takes long enough for all to be there.
    real = os.scandir

    def slow(path: str) -> object:
        (tmp_path / f"read-{os.getpid()}").touch()
        time.sleep(0.2)
        return real(path)

    monkeypatch.setattr(os, "scandir", slow)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        with ProcessPoolExecutor(3, multiprocessing.get_context("fork")) as processes:
            found = list(processes.map(listed, [root] * 3, chunksize=1))
    assert found == [["a/000.jpg", "a/001.jpg", "b/deep/000.jpg"]] * 3
    assert sum(name.startswith("read-") for name in os.listdir(tmp_path)) == 1  # noqa: PTH208
