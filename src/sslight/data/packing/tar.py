"""Packing into tar shards of WebDataset's layout."""

import json
import tarfile
from collections.abc import Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from sslight.data.packing.parallel import map_in_order
from sslight.data.packing.reencode import Stored
from sslight.data.packing.tally import Tally, prepare_images
from sslight.data.sources.names import NameTable
from sslight.data.sources.source import Source
from sslight.data.sources.tar_index import CLASSES_MEMBER, ShardIndex, escaped, write_index
from sslight.data.sources.tar_members import BLOCK
from sslight.files import whole_file, write_whole

BYTES_AN_IMAGE = 2 * BLOCK + BLOCK + BLOCK // 2
"""Headers of ``KEY.jpg`` and ``KEY.cls``, the label's block, and half a block of padding."""

CHUNK = 32
"""Images in memory at a time."""

_PREFIX = "shard-"
_ORDER_SEED = 0


def write_shards(
    source: Source,
    folder: Path,
    done: Path,
    *,
    short_side: int | None,
    images_per_shard: int,
    workers: int,
) -> Generator[Tally, None, None]:
    """Write the shards that ``done`` does not list into ``folder``; gives the tally so far, first that of earlier ones.

    Images are spread over the shards in one random order, the same every time, so that a reader who
    streams a few shards sees all classes. Each worker writes whole shards. A shard is the same
    byte for byte, whenever and by however many processes it is written. Raises OSError.
    """
    order = np.random.Generator(np.random.Philox(_ORDER_SEED)).permutation(len(source))
    parts = [order[start : start + images_per_shard] for start in range(0, len(order), images_per_shard)]
    for leftover in folder.glob(".*.partial"):
        leftover.unlink()
    tally = Tally()
    missing: list[int] = []
    for number in range(len(parts)):
        earlier = _read_tally(done / f"{number:06d}.json")
        if earlier is None:
            missing.append(number)
        else:
            tally.add(earlier)
    yield tally
    work = partial(_write_shard, source, folder, done, short_side, parts)
    with closing(map_in_order(work, missing, workers=workers)) as written:
        for part in written:
            tally.add(part)
            yield tally


def write_shard_list(folder: Path, done: Path, classes: tuple[str, ...] | None) -> None:
    """Write ``index.json``: shards, their images and bytes in the form of WebDataset's own index, and the classes."""
    shards = []
    for path in sorted(folder.glob("*.tar")):
        tally = _read_tally(done / f"{path.stem.removeprefix(_PREFIX)}.json")
        assert tally is not None
        shards.append({"url": path.name, "nsamples": tally.num_stored, "filesize": path.stat().st_size})
    content = {"wids_version": 1, "shardlist": shards, "classes": classes}
    write_whole(folder / "index.json", json.dumps(content, indent=1))


def _read_tally(path: Path) -> Tally | None:
    # Written whole or not at all, and after its shard.
    return Tally.from_plain(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _write_shard(
    source: Source,
    folder: Path,
    done: Path,
    short_side: int | None,
    parts: list[npt.NDArray[np.int64]],
    number: int,
) -> Tally:
    tally = Tally()
    path = folder / f"{_PREFIX}{number:06d}.tar"
    with whole_file(path, "wb") as file:
        shard = _ShardWriter(file, source.classes)
        for start in range(0, len(parts[number]), CHUNK):
            for index, image in prepare_images(source, parts[number][start : start + CHUNK].tolist(), short_side):
                tally.count(image)
                if isinstance(image, Stored):
                    shard.add(image, None if source.labels is None else int(source.labels[index]))
        shard.end()
    write_index(path, shard.index())
    write_whole(done / f"{number:06d}.json", json.dumps(tally.as_plain()))
    return tally


class _ShardWriter:
    """Writes samples into an open file and keeps where they went."""

    def __init__(self, file: IO[bytes], classes: tuple[str, ...] | None) -> None:
        self._file = file
        self._classes = classes
        self._keys: set[str] = set()
        self._images: list[tuple[str, int, int, int]] = []
        if classes is not None:
            self._member(CLASSES_MEMBER, json.dumps(classes).encode())

    def add(self, image: Stored, label: int | None) -> None:
        key, dot, suffix = escaped(image.name).rpartition(".")
        while key in self._keys:  # a.jpg and a.png are two samples
            key += "%"
        self._keys.add(key)
        offset = self._member(key + dot + suffix, image.encoded)
        if label is not None:
            self._member(f"{key}.cls", str(label).encode())
        self._images.append((image.name, offset, len(image.encoded), -1 if label is None else label))

    def end(self) -> None:
        self._file.write(bytes(2 * BLOCK))

    def index(self) -> ShardIndex:
        _, offsets, sizes, labels = zip(*self._images, strict=True) if self._images else ((), (), (), ())
        return ShardIndex(
            NameTable(name for name, *_ in self._images),
            np.array(offsets, dtype=np.int64),
            np.array(sizes, dtype=np.int64),
            np.array(labels, dtype=np.int32),
            self._classes or (),
        )

    def _member(self, name: str, content: bytes) -> int:
        """Write a member that depends on name and content alone; gives the offset of its content."""
        header = tarfile.TarInfo(name)
        header.size = len(content)
        self._file.write(header.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        offset = self._file.tell()
        self._file.write(content)
        self._file.write(bytes(-len(content) % BLOCK))
        return offset
