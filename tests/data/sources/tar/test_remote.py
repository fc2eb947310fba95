"""Shards in a store: the same images as on a disk, by as many requests, and every failure in a sentence."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sslight.data import StoreUnavailable, TarSource, ViewLoader, build_source, check_readable, pack
from sslight.data.sources.tar import remote
from sslight.data.sources.tar.index import scan, write_index
from sslight.views import MultiCrop
from tests.data.archives import write_tar
from tests.data.pictures import jpeg
from tests.data.store import Store, store


@pytest.fixture
def served() -> Iterator[Store]:
    with store() as running:
        yield running


@pytest.fixture
def shards(served: Store, tmp_path: Path) -> str:
    """The pattern of three shards of four labelled images, without an index."""
    for shard in range(3):
        members = []
        for n in range(shard, 12, 3):
            members += [(f"{n:04d}.jpg", jpeg(n)), (f"{n:04d}.cls", b"cat" if n % 2 else b"ant")]
        write_tar(tmp_path / "shards" / f"s-{shard:03d}.tar", members)
    served.holds(tmp_path / "shards")
    return f"{served.address}/s-{{000..002}}.tar"


@pytest.fixture(autouse=True)
def quick_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.0)


def multi_crop() -> MultiCrop:
    return MultiCrop(num_global=2, num_local=0, global_size=16, local_size=8)


def test_a_store_gives_the_images_and_labels_of_the_same_files_on_a_disk(shards: str, tmp_path: Path) -> None:
    near, far = build_source([str(tmp_path / "shards")], labeled=True), build_source([shards], labeled=True)
    assert [far.name(i) for i in range(12)] == [near.name(i) for i in range(12)]
    assert [far.read(i) for i in range(12)] == [near.read(i) for i in range(12)]
    assert far.labels is not None
    assert near.labels is not None
    assert far.labels.tolist() == near.labels.tolist()


def test_a_shard_without_index_is_read_once_and_its_index_kept_until_it_changes(served: Store, shards: str) -> None:
    build_source([shards], labeled=False)
    assert sorted(name for name, first, _ in served.reads if first == 0) == sorted(served.files)
    served.reads.clear()
    build_source([shards], labeled=False)
    assert served.reads == []
    changed = bytearray(served.files["s-001.tar"])
    changed[600] ^= 1
    served.files["s-001.tar"] = bytes(changed)
    build_source([shards], labeled=False)
    assert {name for name, _, _ in served.reads} == {"s-001.tar"}


def test_packed_shards_are_opened_by_the_index_beside_them(served: Store, shards: str, tmp_path: Path) -> None:
    pack(build_source([str(tmp_path / "shards")], labeled=True), tmp_path / "packed", format="tar", workers=0)
    served.files.clear()
    served.holds(tmp_path / "packed")
    last = max(name for name in served.files if name.endswith(".tar"))
    source = build_source([f"{served.address}/shard-{{000000..{last[6:12]}}}.tar"], labeled=True)
    assert source.classes == ("ant", "cat")
    assert all(count == 512 for name, _, count in served.reads if name == last)  # a header at each end
    served.reads.clear()
    assert source.read(3) == jpeg(3)
    assert len(served.reads) == 1


def test_a_large_index_is_read_whole_and_of_a_foreign_one_only_the_beginning(
    served: Store, shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "FIRST_READ", 200)
    shard = tmp_path / "shards" / "s-000.tar"
    write_index(shard, scan(shard))
    served.holds(tmp_path / "shards")
    served.files["s-001.index"] = served.files["s-002.index"] = b"sslight table 1\n" + bytes(10**6)
    build_source([shards], labeled=False)
    read = [(name, first, count) for name, first, count in served.reads if name.endswith(".index")]
    assert sorted(read) == [
        ("s-000.index", 0, 200),
        ("s-000.index", 200, len(served.files["s-000.index"]) - 200),
        ("s-001.index", 0, 200),
        ("s-002.index", 0, 200),
    ]
    assert not any(name == "s-000.tar" and count > 512 for name, _, count in served.reads)


@pytest.mark.parametrize("workers", [0, 2])
def test_two_processes_read_each_image_of_an_epoch_once_and_go_on_in_its_middle(
    served: Store, shards: str, workers: int
) -> None:
    source = build_source([shards], labeled=False)
    served.reads.clear()
    seen = []
    for rank in (0, 1):
        loader = ViewLoader(source, multi_crop(), batch_size=2, seed=0, rank=rank, world_size=2, workers=workers)
        whole = [batch.indices.tolist() for batch in loader.epoch(0)]
        seen += [index for batch in whole for index in batch]
        loader.close()
        resumed = ViewLoader(source, multi_crop(), batch_size=2, seed=0, rank=rank, world_size=2, workers=workers)
        assert [batch.indices.tolist() for batch in resumed.epoch(0, start_step=1)] == whole[1:]
        resumed.close()
    assert sorted(seen) == list(range(12))
    places = [(name, first) for name, first, _ in served.reads]
    assert len(set(places)) == 12
    assert len(places) == 12 + 8  # and the second and third of three steps once more


def test_images_come_through_few_connections(served: Store, shards: str) -> None:
    source = build_source([shards], labeled=False)
    served.connections.clear()
    for index in list(range(12)) * 3:
        source.read(index)
    assert len(served.connections) <= 3  # those by which the three shards were opened


def test_a_passing_failure_is_tried_again_and_a_lasting_one_stops_without_blaming_an_image(
    served: Store, shards: str
) -> None:
    source = build_source([shards], labeled=False)
    served.failures += [503, 500]
    assert source.read(0) == jpeg(0)
    served.failures += [503] * remote.MAX_RETRIES
    with pytest.raises(StoreUnavailable, match=r"/s-000\.tar cannot be read in 5 attempts \(status 503\)\."):
        source.read(0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_store_that_fails_stops_the_loader_with_its_sentence(served: Store, shards: str, workers: int) -> None:
    source = build_source([shards], labeled=False)
    served.forbidden = True
    loader = ViewLoader(source, multi_crop(), batch_size=4, seed=0, workers=workers, max_bad_share=1.0)
    with pytest.raises(StoreUnavailable, match=r"^http.*\.tar cannot be read \(403: access is refused; has a signed"):
        next(loader.epoch(0))
    loader.close()
    assert loader.bad_images == []


def test_a_shard_that_changes_meanwhile_is_noticed(served: Store, shards: str) -> None:
    source = build_source([shards], labeled=False)
    served.files["s-000.tar"] = served.files["s-001.tar"]
    with pytest.raises(StoreUnavailable, match=r"s-000\.tar cannot be read \(412: it has changed since it was opened"):
        source.read(0)


def test_what_is_wrong_with_an_address_is_said_at_once(served: Store, shards: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"/none\.tar cannot be opened \(404: it does not exist\)\."):
        build_source([f"{served.address}/none.tar"], labeled=False)
    with pytest.raises(ValueError, match=r"is not the address of tar shards.*give, for example, https://"):
        build_source([f"{served.address}/images/"], labeled=False)
    with pytest.raises(ValueError, match=r"^nostore://bucket/s\.tar cannot be read: Protocol not known"):
        build_source(["nostore://bucket/s.tar"], labeled=False)
    served.ranges = False
    with pytest.raises(StoreUnavailable, match="cannot be read in parts: its server does not support Range requests"):
        check_readable(TarSource([remote.RemoteFile(f"{served.address}/s-000.tar")], labeled=False))


def test_a_signature_in_an_address_is_not_shown(served: Store, shards: str) -> None:
    address = f"{served.address}/s-000.tar?signature=secret"
    source = build_source([address], labeled=False)
    assert source.read(0) == jpeg(0)
    served.forbidden = True
    with pytest.raises(StoreUnavailable) as stopped:
        source.read(0)
    assert "secret" not in str(stopped.value) + source.locate(0)


def test_secrets_of_addresses_are_not_in_the_names_of_joined_sets(served: Store, shards: str) -> None:
    addresses = [f"{served.address}/s-00{number}.tar?signature=secret{number}" for number in range(2)]
    source = build_source(addresses, labeled=False)
    assert source.name(0) == "s-000.tar/0000.jpg"
    assert not any("secret" in source.name(index) + source.locate(index) for index in range(len(source)))
    for paths in (addresses[:1] * 2, [addresses[0], addresses[0] + "2"], [f"{served.address}/x?secret=1"]):
        with pytest.raises(ValueError, match=r"given twice|is not the address") as refused:
            build_source(paths, labeled=False)
        assert "secret" not in str(refused.value)
    assert remote.shown_address("https://me:secret@host/a@b/s.tar?secret#secret") == "https://host/a@b/s.tar"
