import multiprocessing
import os
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sslight.data import TarSource, UnreadableImage, ViewLoader, build_image_source, build_source, passed_over
from sslight.data.sources.tar.index import ShardIndex, index_path, load_index, scan, write_index
from sslight.views import MultiCrop
from tests.data.archives import tar_bytes, write_tar
from tests.data.pictures import jpeg


def names(source: TarSource) -> list[str]:
    return [source.name(index) for index in range(len(source))]


def labelled_shards(folder: Path, *, shards: int = 3, each: int = 4) -> list[Path]:
    """WebDataset shards whose labels are words; image ``n`` is ``jpeg(n)``, not in the order of the names."""
    paths = []
    for shard in range(shards):
        members = []
        for n in range(shard, shards * each, shards):
            members += [(f"{n:04d}.jpg", jpeg(n)), (f"{n:04d}.cls", b"cat\n" if n % 2 else b"ant")]
        paths.append(write_tar(folder / f"s-{shard:03d}.tar", members))
    return paths


def test_images_of_all_shards_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    source = TarSource(labelled_shards(tmp_path), labeled=True)
    assert names(source) == [f"{n:04d}.jpg" for n in range(12)]
    assert [source.read(index) for index in range(12)] == [jpeg(n) for n in range(12)]
    assert source.classes == ("ant", "cat")
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1] * 6
    assert source.labels.dtype == np.int64
    assert source.locate(4) == f"{tmp_path}/s-001.tar:0004.jpg"
    for index in (-1, 12):
        with pytest.raises(IndexError):
            source.read(index)


def test_names_are_ordered_by_their_parts_as_in_a_folder(tmp_path: Path) -> None:
    write_tar(tmp_path / "t.tar", [("a-b/0.jpg", b"1"), ("a/0.jpg", b"2"), ("a.jpg", b"3"), ("a/b/0.jpg", b"4")])
    source = TarSource([tmp_path / "t.tar"], labeled=False)
    with tarfile.open(tmp_path / "t.tar") as archive:
        archive.extractall(tmp_path / "folder", filter="data")
    folder = build_source([str(tmp_path / "folder")], labeled=False)
    assert names(source) == [folder.name(index) for index in range(4)]


def test_a_folder_a_pattern_and_a_file_are_read_as_shards(tmp_path: Path) -> None:
    labelled_shards(tmp_path, shards=3)
    assert len(build_source([str(tmp_path)], labeled=True)) == 12
    assert len(build_source([str(tmp_path / "s-{000..001}.tar")], labeled=True)) == 8
    assert len(build_source([str(tmp_path / "s-002.tar")], labeled=True)) == 4
    with pytest.raises(ValueError, match=r"2 of 5 shards do not exist \(first: \S+s-003.tar\); check the pattern"):
        build_source([str(tmp_path / "s-{000..004}.tar")], labeled=True)


def test_classes_are_the_folders_where_there_are_no_labels(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "t.tar", [("./b/0.jpg", b"1"), ("./a/x/0.jpg", b"2"), ("./b/1.jpg", b"3")])
    source = TarSource([shard], labeled=True)
    assert source.classes == ("a", "b")
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, 1]


def test_missing_labels_are_named(tmp_path: Path) -> None:
    some = write_tar(tmp_path / "some.tar", [("0.jpg", b"x"), ("0.cls", b"1"), ("1.jpg", b"y"), ("2.jpg", b"z")])
    with pytest.raises(
        ValueError, match=r"some.tar:1.jpg is one of 2 of 3 images without a KEY.cls, so the shards have"
    ):
        TarSource([some], labeled=True)
    none = write_tar(tmp_path / "none.tar", [("0.jpg", b"x"), ("a/1.jpg", b"y")])
    with pytest.raises(ValueError, match=r"none.tar has neither KEY.cls members nor class folders"):
        TarSource([none], labeled=True)
    assert len(TarSource([some, none], labeled=False)) == 5


def samples(tmp_path: Path, *suffixes: str, keys: int = 2) -> Path:
    members = [(f"v.1/{key}.{suffix}", suffix.encode()) for key in range(keys) for suffix in (*suffixes, "cls", "json")]
    return write_tar(tmp_path / "t.tar", members)


@pytest.mark.parametrize(
    ("suffixes", "chosen"),
    [
        (["seg.png", "jpg"], "jpg"),
        (["jpg", "png"], "jpg"),
        (["png", "seg.jpg", "depth.png"], "png"),
        (["depth.png", "rgb.JPG"], "rgb.JPG"),
    ],
)
def test_a_sample_of_several_images_gives_one(tmp_path: Path, suffixes: list[str], chosen: str) -> None:
    source = TarSource([samples(tmp_path, *suffixes)], labeled=True)
    assert names(source) == [f"v.1/{key}.{chosen}" for key in range(2)]
    assert source.read(1) == chosen.encode()
    assert source.classes == ("cls",)
    assert passed_over(source) == {f".{suffix}".lower(): 2 for suffix in suffixes if suffix != chosen}


def test_which_image_of_a_sample_is_read_can_be_set(tmp_path: Path) -> None:
    shard = str(samples(tmp_path, "jpg", "seg.png"))
    masks = build_source([shard], labeled=False, tar_image="seg.png")
    assert [masks.name(index) for index in range(2)] == ["v.1/0.seg.png", "v.1/1.seg.png"]
    assert len(build_source([shard], labeled=False, tar_image="all")) == 4
    with pytest.raises(
        ValueError, match=r"tar_image=seg is not the suffix of any image in .*: the suffixes are .jpg, .seg.png"
    ):
        build_source([shard], labeled=False, tar_image="seg")
    with pytest.raises(ValueError, match=r"tar_image=all would have no effect: data.train names no tar shards"):
        build_source(["synthetic:4"], labeled=False, tar_image="all")


def test_a_sample_of_which_no_image_stands_out_is_refused(tmp_path: Path) -> None:
    shard = samples(tmp_path, "left.jpg", "right.jpg")
    with pytest.raises(ValueError, match=r"first: v.1/0.left.jpg, with left.jpg, right.jpg\); set tar_image=left.jpg"):
        TarSource([shard], labeled=False)
    assert names(TarSource([shard], labeled=False, image="right.jpg")) == ["v.1/0.right.jpg", "v.1/1.right.jpg"]
    chosen = build_image_source([str(shard)], setting="images", tar_image="right.jpg")
    assert [chosen.name(index) for index in range(2)] == ["v.1/0.right.jpg", "v.1/1.right.jpg"]
    with pytest.raises(ValueError, match=r"tar_image=right.jpg would have no effect: images names no tar shards"):
        build_image_source(["synthetic:4"], setting="images", tar_image="right.jpg")


def test_tar_files_written_one_after_the_other_into_one_are_all_read(tmp_path: Path) -> None:
    parts = [labelled_shards(tmp_path / "parts", shards=3)[n].read_bytes() for n in range(3)]
    (tmp_path / "t.tar").write_bytes(b"".join(parts))
    source = TarSource([tmp_path / "t.tar"], labeled=True)
    assert [source.read(index) for index in range(12)] == [jpeg(n) for n in range(12)]
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1] * 6
    (tmp_path / "t.tar").write_bytes(parts[0] + b"words" * 200)
    with pytest.raises(ValueError, match=r"t.tar has (no valid header|a header)"):
        TarSource([tmp_path / "t.tar"], labeled=True)


def test_packed_shards_of_different_classes_are_not_read_as_one(tmp_path: Path) -> None:
    parts = [
        tar_bytes([("__meta__/classes.json", f'["{name}"]'.encode()), (f"{name}.jpg", b""), (f"{name}.cls", b"0")])
        for name in ("a", "b")
    ]
    (tmp_path / "t.tar").write_bytes(b"".join(parts))
    with pytest.raises(ValueError, match=r"holds two __meta__/classes.json that differ: give the original tar files"):
        TarSource([tmp_path / "t.tar"], labeled=True)


def test_equal_names_in_several_shards_are_told_apart_and_in_one_shard_refused(tmp_path: Path) -> None:
    shards = [write_tar(tmp_path / name, [("0.jpg", name.encode())]) for name in ("a.tar", "b.tar")]
    source = TarSource(shards, labeled=False)
    assert names(source) == ["a.tar/0.jpg", "b.tar/0.jpg"]
    assert source.read(1) == b"b.tar"
    twice = write_tar(tmp_path / "c.tar", [("0.jpg", b"x"), ("0.jpg", b"y")])
    with pytest.raises(ValueError, match=r"c.tar holds 0.jpg twice; make it again with each name once"):
        TarSource([twice], labeled=False)


def test_hidden_members_are_no_images(tmp_path: Path) -> None:
    members = [("a/._0.jpg", b"x"), (".cache/1.jpg", b"y"), ("a/0.jpg", b"z"), ("a/readme.txt", b"")]
    assert names(TarSource([write_tar(tmp_path / "t.tar", members)], labeled=False)) == ["a/0.jpg"]


def test_what_is_no_shard_ends_in_a_sentence(tmp_path: Path) -> None:
    whole = tar_bytes([("0.jpg", jpeg()), ("1.jpg", jpeg(1))])
    link = tarfile.TarInfo("0.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    cases = {
        "cut.tar": (whole[:1200], "ends within 0.jpg, so a part is missing"),
        "between.tar": (whole[: 512 + 2048], "ends with"),
        "empty.tar": (b"", "ends without the end mark"),
        "words.tar": (b"words " * 200, "has a header with an invalid number"),
        "zipped.tar": (b"\x1f\x8b" + whole, r"is compressed \(gzip\), so single images cannot be read; unpack it"),
        "link.tar": (link.tobuf() + bytes(1024), "holds 0.jpg as a link, and links are not followed"),
        "climbs.tar": (tar_bytes([("../0.jpg", b"x")]), "holds '../0.jpg', which lies outside its folder"),
        "none.tar": (tar_bytes([("0.txt", b"x")]), "has no images; give shards with members such as KEY.jpg"),
        "label.tar": (
            tar_bytes([("0.jpg", b"x"), ("0.cls", bytes(2000))]),
            "holds 0.cls of 2,000 bytes, which is not a label",
        ),
        "classes.tar": (
            tar_bytes([("__meta__/classes.json", b"{}")]),
            "has a __meta__/classes.json that is not a list of names",
        ),
        "numbers.tar": (
            tar_bytes([("__meta__/classes.json", b'["a"]'), ("0.jpg", b""), ("0.cls", b"1")]),
            "has labels that are not positions",
        ),
    }
    for name, (content, sentence) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} {sentence}"):
            build_source([str(tmp_path / name)], labeled=False)


def test_a_huge_member_is_unreadable_before_memory_is_taken(tmp_path: Path) -> None:
    header = tarfile.TarInfo("0.jpg")
    header.size = 2**31
    with (tmp_path / "t.tar").open("wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + 2**31 + 1024)  # a file with a hole
    with pytest.raises(UnreadableImage, match="the tar member claims 2,147,483,648 bytes"):
        TarSource([tmp_path / "t.tar"], labeled=False).read(0)


def test_forked_processes_read_beside_a_parent_that_has_read(tmp_path: Path) -> None:
    source = TarSource(labelled_shards(tmp_path), labeled=False)
    expected = [source.read(index) for index in range(12)]
    context = multiprocessing.get_context("fork")
    results = context.Queue()

    def read_all() -> None:
        results.put([source.read(index) for _ in range(20) for index in range(12)])

    children = [context.Process(target=read_all) for _ in range(2)]
    for child in children:
        child.start()
    assert [source.read(index) for index in range(12)] == expected
    assert [results.get(timeout=30) for _ in children] == [expected * 20] * 2
    for child in children:
        child.join()


def test_only_so_many_shards_are_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslight.data.sources.tar.source.OPEN_SHARDS", 2)
    opened: list[int] = []
    closed: list[int] = []
    real_open, real_close = os.open, os.close
    source = TarSource(labelled_shards(tmp_path, shards=6, each=2), labeled=False)

    def note_open(path: str, flags: int) -> int:
        opened.append(real_open(path, flags))
        return opened[-1]

    def note_close(descriptor: int) -> None:
        closed.append(descriptor)
        real_close(descriptor)

    monkeypatch.setattr(os, "open", note_open)
    monkeypatch.setattr(os, "close", note_close)
    assert [source.read(index) for index in range(12)] == [jpeg(n) for n in range(12)]
    assert len(opened) == 12  # neighbours in name lie in different shards
    assert len(closed) == 10
    del source
    assert sorted(closed) == sorted(opened)


def test_threads_read_right_bytes_from_more_shards_than_are_kept_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sslight.data.sources.tar.source.OPEN_SHARDS", 2)
    shards = [write_tar(tmp_path / f"{n:02d}.tar", [(f"{n:02d}.jpg", bytes([n]) * 5000)]) for n in range(30)]
    source = TarSource(shards, labeled=False)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            wrong = list(threads.map(lambda i: source.read(i % 30) != bytes([i % 30]) * 5000, range(1000)))
    finally:
        sys.setswitchinterval(before)
    assert not any(wrong)


@pytest.mark.parametrize("workers", [0, 2])
def test_two_processes_with_any_number_of_workers_see_every_image_once(tmp_path: Path, workers: int) -> None:
    source = TarSource(labelled_shards(tmp_path, shards=4, each=6), labeled=True)
    crops = MultiCrop(num_global=2, num_local=0, global_size=8)
    seen: list[int] = []
    for rank in range(2):
        loader = ViewLoader(source, crops, batch_size=3, seed=1, rank=rank, world_size=2, workers=workers)
        for batch in loader.epoch(0):
            seen += batch.indices.tolist()
            assert batch.labels is not None
            assert batch.labels.tolist() == [index % 2 for index in batch.indices.tolist()]
        loader.close()
    assert sorted(seen) == list(range(24))


def test_an_index_beside_the_shard_saves_reading_its_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [shard] = labelled_shards(tmp_path, shards=1)
    write_index(shard, scan(shard))
    monkeypatch.setattr("sslight.data.sources.tar.index.scan", lambda shard: pytest.fail("the headers were read"))
    source = TarSource([shard], labeled=True)
    assert [source.read(index) for index in range(4)] == [jpeg(n) for n in range(4)]


def test_an_index_that_does_not_fit_its_shard_is_not_used(tmp_path: Path) -> None:
    [shard] = labelled_shards(tmp_path, shards=1)
    right = scan(shard)

    def changed(**arrays: np.ndarray) -> ShardIndex:
        return ShardIndex(**{**vars(right), **arrays})

    wrong = [
        changed(offsets=right.offsets + 512),
        changed(offsets=right.offsets + 2**40),
        changed(offsets=-right.offsets),
        changed(sizes=right.sizes + 1),
        changed(sizes=-right.sizes),
        changed(labels=right.labels + 2),
        changed(labels=right.labels - 5),
        changed(offsets=right.offsets[:-1]),
        changed(samples=right.samples[:-1]),
    ]
    for index in wrong:
        write_index(shard, index)
        assert load_index(shard).offsets.tolist() == right.offsets.tolist()
    index_path(shard).write_bytes(b"words")
    assert load_index(shard).sizes.tolist() == right.sizes.tolist()
    write_index(shard, right)
    write_tar(shard, [("other.jpg", jpeg(9))])  # another size
    assert names(TarSource([shard], labeled=False)) == ["other.jpg"]


def test_a_shard_that_changed_after_it_was_indexed_gives_no_wrong_bytes(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "t.tar", [(f"{n}.jpg", bytes(700)) for n in range(3)])
    source = TarSource([shard], labeled=False)
    content = bytearray(shard.read_bytes())
    content[1536:3072] = tar_bytes([("1.jpg", bytes(650))])[:1536]
    shard.write_bytes(content)
    assert source.read(0) == bytes(700)
    with pytest.raises(UnreadableImage, match="has changed since it was indexed"):
        source.read(1)
    shard.write_bytes(content[:4000])
    with pytest.raises(UnreadableImage, match="has changed since it was indexed"):
        source.read(2)


def test_headers_of_large_shards_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslight.data.sources.tables.SMALLEST_CACHED", 1)
    monkeypatch.setattr("sslight.data.sources.tables.SETTLED_NS", -(10**12))
    [shard] = labelled_shards(tmp_path, shards=1)
    first = TarSource([shard], labeled=True)
    with monkeypatch.context() as patch:
        patch.setattr("sslight.data.sources.tar.index.scan", lambda shard: pytest.fail("the headers were read"))
        again = TarSource([shard], labeled=True)
    assert names(again) == names(first)
    assert again.classes == first.classes
    write_tar(shard, [("other.jpg", b"x"), ("other.cls", b"y")])
    assert names(TarSource([shard], labeled=True)) == ["other.jpg"]
