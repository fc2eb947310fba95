"""Packing into tar shards of WebDataset's layout."""

import json
import tarfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from sslight.data.packing.prepare import Prepared, Tally, prepared_images
from sslight.data.packing.reencode import Stored
from sslight.data.sources.bad_images import BadImage
from sslight.data.sources.names import NameTable
from sslight.data.sources.source import Source
from sslight.data.sources.tar.index import CLASSES_MEMBER, ShardIndex, escaped, write_index
from sslight.data.sources.tar.members import BLOCK
from sslight.files import whole_file, write_whole

BYTES_AN_IMAGE = 2 * BLOCK + BLOCK + BLOCK // 2
"""Headers of ``KEY.jpg`` and ``KEY.cls``, the label's block, and half a block of padding."""

_PREFIX = "shard-"
_ORDER_SEED = 0


def write_shards(
    source: Source,
    folder: Path,
    done: Path,
    prepare: Callable[[Sequence[int]], list[Prepared]],
    *,
    images_per_shard: int,
    workers: int,
    count: Callable[[Stored | BadImage], None],
    task: tuple[int, int] = (0, 1),
) -> None:
    """Write the shards that ``done`` does not list into ``folder``; ``count`` is told of each of their images.

    Of several processes, ``task`` (number, how many), each writes every n-th shard.

    Images are spread over the shards in one random order, the same every time, so that a reader of a few shards sees
    all classes. A shard is the same byte for byte, by however many processes it is written. Raises OSError.
    """
    order = np.random.Generator(np.random.Philox(_ORDER_SEED)).permutation(len(source)).tolist()
    shards = [order[start : start + images_per_shard] for start in range(0, len(order), images_per_shard)]
    finished = finished_shards(done)
    missing = [number for number in range(task[0], len(shards), task[1]) if number not in finished]
    indices = [index for number in missing for index in shards[number]]
    with closing(prepared_images(prepare, indices, workers=workers)) as images:
        for number in missing:
            tally = Tally()
            path = folder / f"{_PREFIX}{number:06d}.tar"
            with whole_file(path, "wb") as file:
                shard = _ShardWriter(file, source.classes)
                for index, image in islice(images, len(shards[number])):
                    if isinstance(image, Stored):
                        shard.add(image, None if source.labels is None else int(source.labels[index]))
                    tally.count(image)
                    count(image)
                shard.end()
            write_index(path, shard.index())
            write_whole(finished_file(done, number), json.dumps(asdict(tally)))


def finished_file(done: Path, number: int) -> Path:
    """What is there once a shard is finished."""
    return done / f"{number:06d}.json"


def finished_shards(done: Path) -> dict[int, Tally]:
    """The count of each shard that ``done`` lists, by number; it is written whole, and after its shard."""
    return {
        int(path.stem): Tally.from_plain(json.loads(path.read_text(encoding="utf-8"))) for path in done.glob("*.json")
    }


def write_shard_list(folder: Path, done: Path, classes: tuple[str, ...] | None) -> None:
    """Write ``index.json``: shards, their images and bytes in the form of WebDataset's own index, and the classes."""
    shards = []
    for number, tally in sorted(finished_shards(done).items()):
        path = folder / f"{_PREFIX}{number:06d}.tar"
        shards.append({"url": path.name, "nsamples": tally.num_stored, "filesize": path.stat().st_size})
    content = {"wids_version": 1, "shardlist": shards, "classes": classes}
    write_whole(folder / "index.json", json.dumps(content, indent=1))


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
        names = NameTable(name for name, *_ in self._images)
        offsets, sizes, labels = np.array([places for _, *places in self._images], dtype=np.int64).reshape(-1, 3).T
        samples = np.arange(len(names), dtype=np.int32)
        return ShardIndex(names, offsets, sizes, samples, labels.astype(np.int32), self._classes or ())

    def _member(self, name: str, content: bytes) -> int:
        """Write a member that depends on name and content alone; gives the offset of its content."""
        header = tarfile.TarInfo(name)
        header.size = len(content)
        self._file.write(header.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        offset = self._file.tell()
        self._file.write(content)
        self._file.write(bytes(-len(content) % BLOCK))
        return offset
