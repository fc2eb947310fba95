import csv
import errno
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import h5py
import pytest
from PIL import Image

from sslight.config.schema.fields import MAX_PIXELS
from sslight.data import FolderSource, H5Source, PackResult, Source, SyntheticSource, build_source, pack
from sslight.data.packing.prepare import prepare
from sslight.data.packing.tar import write_shards
from sslight.data.sources.tar.index import load_index, scan
from tests.data.pictures import encode, jpeg, smooth_pixels, write_class_folders

FORMATS: list[Literal["h5", "tar"]] = ["h5", "tar"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """64 × 48 px and some others, of which two cannot be read."""
    root = write_class_folders(tmp_path / "images", {"b": 40, "a": 30, "c.d": 20})
    (root / "a" / "v.1.final.png").write_bytes(encode(Image.fromarray(smooth_pixels(seed=5)), "PNG"))
    (root / "a" / "v.1.final.jpg").write_bytes(jpeg(101))
    (root / "b" / "100%.webp").write_bytes(encode(Image.fromarray(smooth_pixels(20, 20)), "WEBP"))
    (root / "b" / "grün und schön, 猫.jpg").write_bytes(jpeg(102))
    (root / "b" / os.fsdecode(b"\xff\xfe.jpg")).write_bytes(jpeg(103))
    (root / "b" / ("n" * 120 + ".jpg")).write_bytes(jpeg(104))
    (root / "c.d" / "broken.jpg").write_bytes(jpeg(1)[:-300])
    (root / "a" / "empty.jpg").write_bytes(b"")
    return root


def contents(source: Source) -> list[tuple[str, bytes, int]]:
    labels = [0] * len(source) if source.labels is None else source.labels.tolist()
    return [(source.name(index), source.read(index), labels[index]) for index in range(len(source))]


def readable(folder: Path, *, labeled: bool = True) -> list[tuple[str, bytes, int]]:
    whole = contents(FolderSource(folder, labeled=labeled))
    return [image for image in whole if not image[0].endswith(("/broken.jpg", "/empty.jpg"))]


def files(folder: Path) -> dict[str, bytes]:
    paths = folder.rglob("*") if folder.is_dir() else [folder]
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_packed_set_has_the_images_names_labels_and_order_of_the_folder(
    folder: Path, tmp_path: Path, format: Literal["h5", "tar"], workers: int
) -> None:
    told: list[tuple[int, int]] = []
    result = pack(
        FolderSource(folder, labeled=True),
        tmp_path / "out",
        format=format,
        shard_images=20 if format == "tar" else None,
        workers=workers,
        progress=lambda done, total: told.append((done, total)),
    )
    packed = build_source([str(tmp_path / "out")], labeled=True)
    assert contents(packed) == readable(folder)
    assert packed.classes == ("a", "b", "c.d")
    assert (result.num_images, result.num_classes, result.num_reencoded, result.num_bad) == (96, 3, 0, 2)
    assert result.num_bytes == sum(len(encoded) for _, encoded, _ in readable(folder))
    assert told[0] == (0, 98)
    assert told[-1] == (98, 98)
    assert not (tmp_path / "out.packing").exists()
    assert result.bad_images_file is not None
    with result.bad_images_file.open(newline="") as file:
        rows = list(csv.reader(file))
    assert [(row[0], row[1]) for row in rows[1:]] == [("30", "a/empty.jpg"), ("97", "c.d/broken.jpg")]
    assert rows[1][2] == "the file is empty (0 bytes)"


def test_shards_are_those_of_webdataset_and_stand_without_their_index(folder: Path, tmp_path: Path) -> None:
    pack(FolderSource(folder, labeled=True), tmp_path / "out", format="tar", shard_images=25)
    shards = sorted((tmp_path / "out").glob("*.tar"))
    assert [path.name for path in shards] == [f"shard-{number:06d}.tar" for number in range(4)]
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["classes"] == ["a", "b", "c.d"]
    assert [shard["url"] for shard in index["shardlist"]] == [path.name for path in shards]
    assert sum(shard["nsamples"] for shard in index["shardlist"]) == 96
    assert [shard["filesize"] for shard in index["shardlist"]] == [path.stat().st_size for path in shards]
    for shard in shards:
        keys: list[str] = []
        kept, made = load_index(shard), scan(shard)
        assert all((getattr(kept, name) == getattr(made, name)).all() for name in ("offsets", "sizes", "labels"))
        with tarfile.open(shard) as archive:
            members = archive.getnames()
            classes = set()
            assert members[0] == "__meta__/classes.json"
            for image, label in zip(members[1::2], members[2::2], strict=True):
                suffix = image.rpartition("/")[2].partition(".")[2]
                key = image.removesuffix(f".{suffix}")
                assert label == f"{key}.cls"
                assert suffix in ("jpg", "png", "webp")
                keys.append(key)
                text = archive.extractfile(label)
                assert text is not None
                number = int(text.read())
                assert index["classes"][number] == image.split("/")[0]
                classes.add(number)
            assert len(classes) == 3  # every shard has images of all classes
        assert len(set(keys)) == len(keys) == len(kept.names)  # WebDataset makes one sample of equal keys
        shard.with_suffix(".index").unlink()
    assert contents(build_source([str(tmp_path / "out")], labeled=True)) == readable(folder)


def test_images_without_classes_are_packed_without_labels(tmp_path: Path) -> None:
    root = tmp_path / "images"
    (root / "deep" / "er").mkdir(parents=True)
    for number, path in enumerate((root / "x.jpg", root / "deep" / "y.jpg", root / "deep" / "er" / "z.jpg")):
        path.write_bytes(jpeg(number))
    source = FolderSource(root, labeled=False)
    assert pack(source, tmp_path / "t", format="tar").num_classes is None
    assert contents(build_source([str(tmp_path / "t")], labeled=False)) == contents(source)
    pack(source, tmp_path / "t.h5", format="h5")
    packed = H5Source(tmp_path / "t.h5", labeled=False)
    assert [packed.name(index) for index in range(3)] == ["deep/er%2Fz.jpg", "deep/y.jpg", "images/x.jpg"]
    assert [packed.read(index) for index in range(3)] == [jpeg(2), jpeg(1), jpeg(0)]


def test_every_source_can_be_packed_into_every_format(folder: Path, tmp_path: Path) -> None:
    expected = readable(folder)
    current: Source = FolderSource(folder, labeled=True)
    for number, format in enumerate([*FORMATS, *reversed(FORMATS)]):
        pack(current, tmp_path / str(number), format=format)
        current = build_source([str(tmp_path / str(number))], labeled=True)
        assert contents(current) == expected


def test_names_without_a_suffix_get_one(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "t.h5", "w") as file:
        for name in ("a/0", "a/1.5", "b/2"):
            file[name] = memoryview(jpeg())
    pack(H5Source(tmp_path / "t.h5", labeled=True), tmp_path / "out", format="tar")
    packed = build_source([str(tmp_path / "out")], labeled=True)
    assert [packed.name(index) for index in range(3)] == ["a/0.jpg", "a/1.5.jpg", "b/2.jpg"]


@pytest.mark.parametrize("format", FORMATS)
def test_larger_images_are_made_smaller_and_counted(tmp_path: Path, format: Literal["h5", "tar"]) -> None:
    root = write_class_folders(tmp_path / "images", {"a": 2, "b": 2})  # 64 × 48 px
    (root / "a" / "small.png").write_bytes(encode(Image.fromarray(smooth_pixels(24, 90)), "PNG"))
    result = pack(FolderSource(root, labeled=True), tmp_path / "out", format=format, short_side=32)
    assert (result.num_images, result.num_reencoded) == (5, 4)
    packed = build_source([str(tmp_path / "out")], labeled=True)
    assert packed.read(2) == (root / "a" / "small.png").read_bytes()
    assert packed.read(0) != (root / "a" / "000.jpg").read_bytes()


def killed(child: Callable[[Callable[[int, int], None]], object], after: int) -> None:
    """Run ``child`` in a process that is killed when it tells that ``after`` images are done."""
    process = os.fork()
    if process == 0:
        try:
            os.setpgid(0, 0)
            child(lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done >= after else None)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_packing_goes_on_and_ends_as_an_uninterrupted_one(
    folder: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FolderSource(folder, labeled=True)
    options: dict[str, Any] = {"format": "tar", "short_side": 40, "shard_images": 10}

    def attempt(progress: Callable[[int, int], None] = lambda done, total: None, **changes: Any) -> PackResult:
        return pack(source, tmp_path / "out", workers=workers, progress=progress, **{**options, **changes})

    whole = pack(source, tmp_path / "whole", **options)
    for after in (20, 50, 90):
        killed(attempt, after)
        assert not (tmp_path / "out").exists()
        with pytest.raises(
            ValueError, match=r"holds an unfinished packing with other settings .short_side was 40 and is now 41"
        ):
            attempt(short_side=41)
    told: list[int] = []
    result = attempt(lambda done, total: told.append(done))
    assert told[0] > 50
    assert vars(result) | {"output": 0, "bad_images_file": 0} == vars(whole) | {"output": 0, "bad_images_file": 0}
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.parametrize("next_format", FORMATS)
def test_a_killed_packing_into_h5_begins_anew_in_either_format(
    folder: Path, tmp_path: Path, next_format: Literal["h5", "tar"]
) -> None:
    source = FolderSource(folder, labeled=True)
    killed(lambda progress: pack(source, tmp_path / "out", format="h5", workers=2, progress=progress), 50)
    assert [path.name for path in tmp_path.iterdir() if path.name != "images"] == ["out.packing"]
    pack(source, tmp_path / "out", format=next_format, short_side=None)
    assert contents(build_source([str(tmp_path / "out")], labeled=True)) == readable(folder)
    assert not (tmp_path / "out.packing").exists()


@pytest.mark.slow
def test_a_packing_killed_at_random_moments_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    source = SyntheticSource(600)
    options: dict[str, Any] = {"format": "tar", "short_side": 32, "shard_images": 20}
    pack(source, tmp_path / "whole", **options)
    rng = random.Random(0)
    attempts = 0
    while not (tmp_path / "out").exists():
        process = os.fork()
        if process == 0:
            try:
                pack(source, tmp_path / "out", workers=2, **options)
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0.1, 0.5) * 1.1**attempts)  # longer each time: a busy machine gets there too
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        attempts += 1
        assert attempts < 60
    assert attempts > 3
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_ends_in_a_sentence_and_the_same_call_succeeds_later(
    folder: Path, tmp_path: Path, format: Literal["h5", "tar"]
) -> None:
    source = FolderSource(folder, labeled=True)

    def fill_up() -> None:
        # A limit on the size of a file, instead of a disk: HDF5 itself would crash in either case.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
        sizes = {"h5": None, "tar": 30}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sslight.data.packing.pack._FULL", (errno.EFBIG,))
            with pytest.raises(
                OSError, match=r"the disk is full after \d+ of 98 images; free some space and .*again: it"
            ) as error:
                pack(source, tmp_path / "out", format=format, shard_images=sizes[format], workers=2)
        assert error.value.filename == str(tmp_path / "out")
        os._exit(0)

    process = os.fork()
    if process == 0:
        try:
            fill_up()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.packing").exists() == (format == "tar")
    pack(source, tmp_path / "out", format=format)
    assert contents(build_source([str(tmp_path / "out")], labeled=True)) == readable(folder)


@pytest.mark.parametrize("format", FORMATS)
def test_an_interruption_waits_for_no_more_than_one_chunk_a_worker(
    folder: Path, tmp_path: Path, format: Literal["h5", "tar"]
) -> None:
    source = FolderSource(folder, labeled=True)
    begun = multiprocessing.get_context("fork").Value("i", 0)

    class Slow(FolderSource):
        def read(self, index: int) -> bytes:
            with begun:
                begun.value += 1
            time.sleep(0.01)
            return super().read(index)

    told: list[int] = []

    def interrupt(done: int, total: int) -> None:
        told.append(done)
        if done >= 16:
            begun.value = 0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(Slow(folder, labeled=True), tmp_path / "out", format=format, workers=2, progress=interrupt)
    assert begun.value <= 16  # of 98 images that may all lie in one shard
    assert told == [0, 8, 16]
    pack(source, tmp_path / "out", format=format)
    assert contents(build_source([str(tmp_path / "out")], labeled=True)) == readable(folder)


def test_too_little_room_is_told_before_anything_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        ValueError, match=r"out needs about 0 MB and \S+ has 0 MB free; free some space, choose another disk"
    ):
        pack(FolderSource(folder, labeled=True), tmp_path / "out", format="h5")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_is_overwritten(folder: Path, tmp_path: Path, format: Literal["h5", "tar"]) -> None:
    source = FolderSource(folder, labeled=True)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "images", "link"):
        with pytest.raises(
            ValueError, match=f"{name} exists and will not be replaced: choose another name, or remove it"
        ):
            pack(source, tmp_path / name, format=format)
    (tmp_path / "out.packing").mkdir()
    (tmp_path / "out.packing" / "mine.txt").write_text("precious")
    (tmp_path / "out").write_text("precious")
    with pytest.raises(ValueError, match="out exists and will not be replaced"):
        pack(source, tmp_path / "out", format=format)
    (tmp_path / "out").unlink()
    with pytest.raises(ValueError, match=r"out.packing is in the way and was not made by this command: move it"):
        pack(source, tmp_path / "out", format=format)
    assert (tmp_path / "out.packing" / "mine.txt").read_text() == "precious"
    with pytest.raises(ValueError, match="there is no folder"):
        pack(source, tmp_path / "no" / "where", format=format)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_packing_leaves_no_process_and_goes_on(
    folder: Path, tmp_path: Path, format: Literal["h5", "tar"], workers: int
) -> None:
    source = FolderSource(folder, labeled=True)
    for after in (0, 1):

        def interrupt(done: int, total: int, after: int = after) -> None:
            if done >= after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pack(source, tmp_path / "out", format=format, workers=workers, progress=interrupt)
        assert not multiprocessing.active_children()
    pack(source, tmp_path / "out", format=format, workers=workers)
    assert contents(build_source([str(tmp_path / "out")], labeled=True)) == readable(folder)


def test_two_packings_of_one_output_exclude_each_other(folder: Path, tmp_path: Path) -> None:
    source = FolderSource(folder, labeled=True)
    killed(lambda progress: pack(source, tmp_path / "out", format="tar", shard_images=10, progress=progress), 20)
    holder = os.fork()
    if holder == 0:
        try:
            from sslight.data.packing.pack import Work

            with Work(tmp_path / "out").locked(0):
                (tmp_path / "held").touch()
                time.sleep(60)
        finally:
            os._exit(1)
    deadline = time.monotonic() + 30
    while not (tmp_path / "held").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        with pytest.raises(ValueError, match="is being written by another process; wait for it to end"):
            pack(source, tmp_path / "out", format="tar")
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    pack(source, tmp_path / "out", format="tar")


def test_another_set_does_not_go_on_where_one_stopped(folder: Path, tmp_path: Path) -> None:
    killed(
        lambda progress: pack(FolderSource(folder, labeled=True), tmp_path / "out", format="tar", progress=progress), 0
    )
    (folder / "a" / "new.jpg").write_bytes(jpeg(7))
    with pytest.raises(ValueError, match="num_images was 98 and is now 99"):
        pack(FolderSource(folder, labeled=True), tmp_path / "out", format="tar")


@pytest.mark.parametrize("format", FORMATS)
def test_a_set_that_vanishes_stops_the_packing(folder: Path, tmp_path: Path, format: Literal["h5", "tar"]) -> None:
    source = FolderSource(folder, labeled=True)

    def vanish(done: int, total: int) -> None:
        if folder.exists():
            folder.rename(tmp_path / "away")

    with pytest.raises(OSError, match=r"none of \d+ images in a row could be read \(No such file or directory\)"):
        pack(source, tmp_path / "out", format=format, progress=vanish)
    (tmp_path / "away").rename(folder)
    pack(source, tmp_path / "out", format=format)
    assert contents(build_source([str(tmp_path / "out")], labeled=True)) == readable(folder)


def test_a_set_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"no readable image among the 1 tried.*check that IN points to intact"):
        pack(FolderSource(tmp_path / "images", labeled=False), tmp_path / "out", format="tar")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_two_images_in_one_place_are_refused(tmp_path: Path) -> None:
    (tmp_path / "images" / "images").mkdir(parents=True)
    for path in ("x.jpg", "images/x.jpg"):
        (tmp_path / "images" / path).write_bytes(jpeg())
    with pytest.raises(ValueError, match=r"x.jpg would be stored twice as .*; use format=tar"):
        pack(FolderSource(tmp_path / "images", labeled=False), tmp_path / "out.h5", format="h5")


@pytest.mark.parametrize("format", ["h5", "tar"])
def test_images_above_the_limit_are_left_out(folder: Path, tmp_path: Path, format: Literal["h5", "tar"]) -> None:
    (folder / "a" / "large.jpg").write_bytes(jpeg(height=100, width=100))
    result = pack(FolderSource(folder, labeled=True), tmp_path / "out", format=format, max_pixels=9_999)
    assert result.num_images == 96
    assert result.bad_images_file is not None
    assert "claims 100 × 100 pixels, more than the limit of 9,999" in result.bad_images_file.read_text()


def packed_together(number: int, images: Path, output: Path) -> int:
    """What each of two processes does: the images that it counted."""
    source = build_source([str(images)], labeled=True)
    return pack(source, output, format="tar", shard_images=2, task=(number, 2)).num_images


def test_two_processes_write_the_shards_that_one_would(tmp_path: Path) -> None:
    images = write_class_folders(tmp_path / "images", {"a": 5, "b": 4})
    (images / "a" / "bad.jpg").write_bytes(b"bad")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as processes:
            words = [1, 0], [images] * 2, [tmp_path / "two"] * 2
            _, first = processes.map(packed_together, *words)
    pack(build_source([str(images)], labeled=True), tmp_path / "one", format="tar", shard_images=2)
    assert first == 9
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == names
    for name in names:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert not list(tmp_path.glob("*.packing"))


def test_the_first_process_writes_what_another_never_did_and_goes_on_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sslight.files.PATIENCE", 0.3)
    images = write_class_folders(tmp_path / "images", {"a": 5, "b": 4})
    assert packed_together(0, images, tmp_path / "out") == 9
    with pytest.raises(ValueError, match=r"format=h5 is written by one process, and 2 were started: use format=tar"):
        pack(build_source([str(images)], labeled=True), tmp_path / "out.h5", format="h5", task=(0, 2))


def test_a_slow_process_may_write_until_all_is_done_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_class_folders(tmp_path / "images", {"a": 5, "b": 4})
    module = sys.modules["sslight.data.packing.pack"]
    half, write_list = [], module.write_shard_list

    def wait_in_vain(files: Sequence[Path], what: str) -> None:
        half.append(next((tmp_path / "out.packing").rglob("shard-000000.tar")).with_name(".shard-000001.tar.9.partial"))
        half[0].touch()

    def write_list_beside_it(*arguments: Any) -> None:
        assert half[0].exists()
        write_list(*arguments)

    monkeypatch.setattr(module, "wait_for", wait_in_vain)
    monkeypatch.setattr(module, "write_shard_list", write_list_beside_it)
    assert packed_together(0, images, tmp_path / "out") == 9
    assert half
    assert not list((tmp_path / "out").glob(".*"))
    assert not (tmp_path / "out.packing").exists()


def test_each_of_several_processes_writes_every_nth_shard(tmp_path: Path) -> None:
    source = SyntheticSource(9, size=24)
    (tmp_path / "done").mkdir()
    for number, shards in ((2, [2]), (0, [0, 2, 3]), (1, [0, 1, 2, 3, 4])):
        ready = partial(prepare, source, None, MAX_PIXELS)
        write_shards(
            source,
            tmp_path,
            tmp_path / "done",
            ready,
            images_per_shard=2,
            workers=0,
            count=lambda _: None,
            task=(number, 3),
        )
        assert sorted(path.name for path in tmp_path.glob("*.tar")) == [f"shard-{shard:06d}.tar" for shard in shards]
