"""Shards gone through in windows: opened when needed, copied from a store, the same images."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sslight.config import load_recipe
from sslight.data import (
    Blocks,
    ConcatSource,
    ShardedTarSource,
    StoreUnavailable,
    SubsetSource,
    ViewLoader,
    build_source,
    data_fingerprint,
    pack,
)
from sslight.data.sources.blocks import copy_shard, has_copies, shard_ends
from sslight.data.sources.build import masks_in_words
from sslight.data.sources.tar import remote, sharded
from sslight.data.sources.tar.copies import ShardCopies
from sslight.data.sources.tar.index import OpenFile
from sslight.views import MultiCrop
from tests.data.archives import write_tar
from tests.data.pictures import jpeg
from tests.data.store import Store, store

BLOCKS = Blocks(window=2, copy_bytes=10**9)


@pytest.fixture
def served() -> Iterator[Store]:
    with store() as running:
        yield running


@pytest.fixture(autouse=True)
def quick_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.0)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Six packed shards of four labelled images."""
    members = [(f"{'cat' if n % 2 else 'ant'}/{n:04d}.jpg", jpeg(n)) for n in range(24)]
    whole = write_tar(tmp_path / "all.tar", members)
    pack(build_source([str(whole)], labeled=True), tmp_path / "packed", format="tar", shard_images=4)
    return tmp_path / "packed"


@pytest.fixture
def far(served: Store, packed: Path) -> str:
    """The pattern of the same shards in a store."""
    served.holds(packed)
    return f"{served.address}/shard-{{000000..000005}}.tar"


def sharded_source(path: str | Path, *, labeled: bool = False, blocks: Blocks = BLOCKS) -> ShardedTarSource:
    source = build_source([str(path)], labeled=labeled, blocks=blocks)
    assert isinstance(source, ShardedTarSource)
    return source


def loader_of(source: ShardedTarSource, **options: object) -> ViewLoader:
    crops = MultiCrop(num_global=2, num_local=0, global_size=16, local_size=8)
    keywords = {"batch_size": 4, "seed": 3, "window": 2, **options}
    return ViewLoader(source, crops, **keywords)  # type: ignore[arg-type]


def epoch_of(loader: ViewLoader, epoch: int = 0, start_step: int = 0) -> list[list[int]]:
    return [batch.indices.tolist() for batch in loader.epoch(epoch, start_step)]


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen in 20 seconds")


def test_the_images_are_those_of_the_shards_whichever_way_they_are_read(packed: Path, far: str) -> None:
    usual = build_source([str(packed)], labeled=True)
    assert usual.labels is not None
    assert usual.classes is not None
    expected = {usual.name(i): (usual.read(i), usual.classes[usual.labels[i]]) for i in range(24)}
    for source in (sharded_source(packed, labeled=True), sharded_source(far, labeled=True)):
        assert source.labels is not None
        assert source.classes is not None
        found = {source.name(i).split("/", 1)[1]: (source.read(i), source.classes[source.labels[i]]) for i in range(24)}
        assert found == expected
        assert shard_ends(source).tolist() == [4, 8, 12, 16, 20, 24]
    assert sharded_source(packed).locate(5) == f"{packed}/shard-000001.tar:{sharded_source(packed).name(5)[17:]}"


def test_with_the_list_beside_them_no_shard_is_opened_before_its_images_are_read(served: Store, far: str) -> None:
    source = sharded_source(far)
    assert len(source) == 24
    assert {name for name, *_ in served.reads} == {"index.json"}
    served.reads.clear()
    source.read(13)
    assert {name for name, *_ in served.reads} == {"shard-000003.tar", "shard-000003.index"}


@pytest.mark.parametrize("change", ["missing", "damaged", "incomplete"])
def test_without_a_whole_list_the_shards_are_counted(packed: Path, change: str) -> None:
    listing = packed / "index.json"
    if change == "missing":
        listing.unlink()
    elif change == "damaged":
        listing.write_text("{")
    else:
        content = json.loads(listing.read_text())
        listing.write_text(json.dumps({**content, "shardlist": content["shardlist"][1:]}))
    assert shard_ends(sharded_source(packed)).tolist() == [4, 8, 12, 16, 20, 24]


def test_a_list_that_is_about_other_shards_stops_in_a_sentence(packed: Path) -> None:
    listing = packed / "index.json"
    listing.write_text(listing.read_text().replace('"nsamples": 4', '"nsamples": 5', 1))
    with pytest.raises(StoreUnavailable, match=r"shard-000000.tar holds 4 images, not 5: .* remove the index.json"):
        sharded_source(packed).read(0)


def test_a_damaged_or_missing_shard_stops_in_a_sentence_and_blames_no_image(packed: Path) -> None:
    source = sharded_source(packed)
    (packed / "shard-000001.tar").unlink()
    (packed / "shard-000002.tar").write_bytes(b"x" * 4000)
    (packed / "shard-000002.index").unlink()
    with pytest.raises(StoreUnavailable, match="No such file"):
        source.read(4)
    with pytest.raises(StoreUnavailable, match=r"shard-000002.tar has a header with an invalid number"):
        source.read(8)
    assert source.locate(4) == f"{packed}/shard-000001.tar:0"


def test_missing_labels_are_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "a" / "0.tar", [("1.jpg", jpeg(1))])
    with pytest.raises(ValueError, match=r"0.tar:1.jpg is one of 1 of 1 images without a KEY.cls or a folder"):
        sharded_source(tmp_path / "a", labeled=True)
    write_tar(tmp_path / "b" / "0.tar", [("x/1.jpg", jpeg(1))])
    write_tar(tmp_path / "b" / "1.tar", [("y/1.jpg", jpeg(2))])
    source = sharded_source(tmp_path / "b", labeled=True)
    assert source.classes == ("x", "y")
    write_tar(tmp_path / "c" / "0.tar", [("x/1.jpg", jpeg(1))])
    with pytest.raises(ValueError, match=r"neither KEY.cls members nor class folders"):
        sharded_source(tmp_path / "c", labeled=True)


@pytest.mark.parametrize("given", ["a folder", "an H5 file", "drawn shapes"])
def test_what_has_no_shards_is_refused_with_the_remedy(packed: Path, tmp_path: Path, given: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "1.jpg").write_bytes(jpeg(1))
    folder = str(tmp_path / "folder")
    if given == "an H5 file":
        pack(build_source([folder], labeled=False), tmp_path / "a.h5", format="h5")
    path = {"a folder": folder, "an H5 file": str(tmp_path / "a.h5"), "drawn shapes": "synthetic:8"}[given]
    with pytest.raises(ValueError, match=r"^data.train=.*: data.order=blocks goes through tar shards .*data pack"):
        build_source([str(packed), path], labeled=False, blocks=BLOCKS)
    with pytest.raises(ValueError, match=r"data.order=blocks goes through tar shards"):
        loader_of(build_source([path], labeled=False), batch_size=1)  # type: ignore[arg-type]


def test_subsets_and_joined_sets_keep_their_shards(packed: Path, far: str, own_cache: Path) -> None:
    near, distant = sharded_source(packed), sharded_source(far)
    joined = ConcatSource([near, distant], ["near", "far"])
    assert shard_ends(joined).tolist() == [4 * n for n in range(1, 13)]
    subset = SubsetSource(joined, np.array([0, 1, 9, 24, 47]))
    assert shard_ends(subset).tolist() == [2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 5]
    assert has_copies(subset)
    assert not has_copies(near)
    copy_shard(subset, 4)
    assert len(list(own_cache.rglob("copies/*.tar"))) == 1
    prints = [data_fingerprint(source).names for source in (near, joined, subset, SubsetSource(near, np.arange(2)))]
    assert len(set(prints)) == 4
    assert data_fingerprint(distant).names == data_fingerprint(near).names


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_and_workers_change_nothing_and_an_epoch_goes_on_in_its_middle(
    packed: Path, far: str, workers: int
) -> None:
    whole = epoch_of(loader_of(sharded_source(packed)), epoch=1)
    assert sorted(index for batch in whole for index in batch) == list(range(24))
    shares = []
    for rank in (0, 1):
        loader = loader_of(sharded_source(far), batch_size=2, rank=rank, world_size=2, workers=workers)
        shares.append(epoch_of(loader, epoch=1))
        assert epoch_of(loader, epoch=1, start_step=2) == shares[-1][2:]
        loader.close()
    assert [first + second for first, second in zip(*shares, strict=True)] == whole


def test_a_copied_shard_is_not_asked_for_again_by_any_process(served: Store, far: str, own_cache: Path) -> None:
    source = sharded_source(far)
    before = [source.read(i) for i in range(24)]
    served.reads.clear()
    for first in range(0, 24, 4):
        source.copy_shard(first)
        source.copy_shard(first)
    assert sorted(name for name, *_ in served.reads if name.endswith(".tar")) == sorted(
        name for name in served.files if name.endswith(".tar")
    )
    served.reads.clear()
    assert [source.read(i) for i in range(24)] == before
    again = sharded_source(far)
    assert [again.read(i) for i in range(24)] == before
    assert [name for name, *_ in served.reads] == ["index.json"]
    assert not list(own_cache.rglob("*.partial"))


def test_a_shard_that_changed_in_the_store_is_copied_anew(served: Store, far: str) -> None:
    sharded_source(far).copy_shard(0)
    changed = bytearray(served.files["shard-000000.tar"])
    place = changed.index(sharded_source(far).read(0)) + 100
    changed[place] ^= 1
    served.files["shard-000000.tar"] = bytes(changed)
    served.reads.clear()
    assert sharded_source(far).read(0)[100] == changed[place]
    assert any(name == "shard-000000.tar" for name, *_ in served.reads)


def test_copies_stay_within_the_budget_and_the_longest_unused_goes_first(far: str, own_cache: Path) -> None:
    addresses = [far.replace("{000000..000005}", f"{n:06d}") for n in range(6)]
    shards = [remote.RemoteFile(address) for address in addresses]
    copies = ShardCopies(3 * max(shard.size for shard in shards))
    for shard in shards[:3]:
        copies.make(shard)
        time.sleep(0.02)
    assert copies.find(shards[0]) is not None  # used again
    copies.make(shards[3])
    assert [copies.find(shard) is not None for shard in shards] == [True, False, True, True, False, False]
    held = sum(path.stat().st_size for path in own_cache.rglob("copies/*.tar"))
    assert held <= copies.budget
    assert len(list(own_cache.rglob("copies/*.index"))) == 3


def test_a_copy_that_was_cut_short_is_made_again(far: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sharded_source(far)
    expected = source.read(1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("sslight.data.sources.tar.copies.write_table", killed)
        with pytest.raises(KeyboardInterrupt):
            source.copy_shard(1)
    assert not list(own_cache.rglob("copies/*"))  # what failed takes no room
    source.copy_shard(1)
    assert sorted(path.suffix for path in own_cache.rglob("copies/*")) == [".index", ".tar"]
    assert sharded_source(far).read(1) == expected


def test_a_disk_that_is_nearly_full_gets_no_copy(far: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sharded_source(far)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2**30 + 10))
    with pytest.raises(OSError, match="there is no room for"):
        source.copy_shard(1)
    assert not list(own_cache.rglob("copies/*"))
    assert len(source.read(1)) > 100


def test_no_shard_is_opened_to_look_for_masks(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build_source([str(packed)], labeled=False, blocks=BLOCKS)
    monkeypatch.setattr(ShardedTarSource, "name", None)
    assert not masks_in_words(SubsetSource(whole, np.arange(4)))
    assert not masks_in_words(ConcatSource([whole, whole], ["a", "b"]))


def test_two_windows_must_fit_into_the_copies(far: str) -> None:
    with pytest.raises(ValueError, match=r"data.cache_gb=2e-05 is less than two windows of data.window=2 shards, "):
        sharded_source(far, blocks=Blocks(2, 20_000))
    assert not sharded_source(far, blocks=Blocks(2, 0)).has_copies


def test_two_windows_of_all_sets_together_must_fit_into_the_copies(far: str, packed: Path) -> None:
    first, second = (far.replace("000000..000005", halves) for halves in ("000000..000002", "000003..000005"))
    sizes = [path.stat().st_size for path in sorted(packed.glob("*.tar"))]
    blocks = Blocks(len(sizes), sum(sizes) - 1)
    for alone in (first, second):
        build_source([alone], labeled=False, blocks=blocks)
    with pytest.raises(ValueError, match=r"is less than two windows of data.window=6 shards, "):
        build_source([first, second], labeled=False, blocks=blocks)
    build_source([first, str(packed)], labeled=False, blocks=blocks)  # those on a disk are not copied


def test_the_loader_copies_what_comes_next_and_reads_it_from_the_disk(served: Store, far: str, own_cache: Path) -> None:
    loader = loader_of(sharded_source(far), workers=1)
    expected = epoch_of(loader_of(sharded_source(far, blocks=Blocks(2, 0)), workers=1))
    assert epoch_of(loader) == expected
    wait_for(lambda: bool(epoch_of(loader, 1)) and len(list(own_cache.rglob("copies/*.tar"))) == 6)
    served.reads.clear()
    epoch_of(loader, 2)
    assert served.reads == []
    loader.close()


def test_the_loader_reads_on_when_the_process_that_copies_has_died(far: str) -> None:
    loader = loader_of(sharded_source(far), workers=1)
    expected = epoch_of(loader_of(sharded_source(far, blocks=Blocks(2, 0))))
    batches = loader.epoch(0)
    found = [next(batches).indices.tolist()]
    assert loader._copying is not None
    process = loader._copying._process
    assert process is not None
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert found + [batch.indices.tolist() for batch in batches] == expected
    assert epoch_of(loader, 1)  # another one is started
    loader.close()


def test_only_a_window_of_shards_is_kept_open(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    class Noted(OpenFile):
        def __init__(self, path: Path) -> None:
            opened.append(path.name)
            super().__init__(path)

    monkeypatch.setattr(sharded, "OpenFile", Noted)
    source = sharded_source(packed)
    for index in (0, 4, 8, 0, 4, 8, 12, 0):  # window + 1 = 3 are kept
        source.read(index)
    assert opened == [
        "shard-000000.tar",
        "shard-000001.tar",
        "shard-000002.tar",
        "shard-000003.tar",
        "shard-000000.tar",
    ]


def test_settings_of_blocks_have_no_effect_on_the_global_order() -> None:
    for setting in ({"data.window": 4}, {"data.cache_gb": 1}):
        with pytest.raises(ValueError, match=r"would have no effect: data.order=global"):
            load_recipe("quickstart", setting)
