"""Images in tar shards with the layout of WebDataset, read at random."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sslight.data.decoding.limits import MAX_ENCODED_BYTES, UnreadableImage
from sslight.data.sources.names import NameTable, printable
from sslight.data.sources.source import UNLABELED, Labeling, folder_labels, joined_labels, refuse_missing_labels
from sslight.data.sources.suffixes import IMAGE_SUFFIXES
from sslight.data.sources.tar.index import OpenFile, ShardIndex, load_index, opened, sample_key
from sslight.data.sources.tar.members import BLOCK, DamagedTar, is_header_of
from sslight.data.sources.tar.remote import RemoteFile

AT_ONCE = 16  # Shards that are opened at the same time
ALL_IMAGES = "all"  # Instead of the suffix of an image: every image of a sample
OPEN_SHARDS = 64  # Shards that a process keeps open


class TarSource:
    """The images in several tar files as one source, in the order of their names' components.

    Images are members by their suffix. A sample (the members with one key, which ends at the first dot of the last
    part) gives one: of several images that with the fewest dots in its suffix, such as ``KEY.jpg`` beside
    ``KEY.seg.png``; of several such that whose format stands first in ``IMAGE_SUFFIXES``; ``image`` names the suffix
    of another (``seg.png``), or ``all``. ``passed_over`` counts the others by suffix. The label is the text of
    ``KEY.cls``; in shards that ``sslight data pack`` wrote, it counts the class names stored with them. Where no
    image has a ``.cls``, the first folders in the names are the classes. If shards use the same names, each name
    gets its shard's file name in front. Every process and thread may read; nothing is unpacked, and no link is
    followed. Shards in a store are read by one request an image.

    Raises ValueError for a damaged shard, for one without images, and for missing labels if ``labeled``; OSError or
    StoreUnavailable if a shard cannot be read.
    """

    def __init__(self, shards: Sequence[Path | RemoteFile], *, labeled: bool, image: str | None = None) -> None:
        assert shards
        self._shards = tuple(shards)
        counts: Counter[str] = Counter()
        with ThreadPoolExecutor(AT_ONCE) as threads:
            loaded = list(threads.map(checked_index, shards))
        indices = [
            one_image_per_sample(shard, index, image, counts) for shard, index in zip(shards, loaded, strict=True)
        ]
        self.passed_over = dict(counts)
        self._shard = np.repeat(np.arange(len(shards), dtype=np.int32), [len(index.names) for index in indices])
        self._offsets = np.concatenate([index.offsets for index in indices])
        self._sizes = np.concatenate([index.sizes for index in indices])
        names = _unique_names(shards, indices)
        if not names and counts:
            raise ValueError(
                f"tar_image={image} is not the suffix of any image in {_listed(shards)}: the "
                f"suffixes are {', '.join(counts)}"
            )
        if not names:
            raise ValueError(f"{_listed(shards)} has no images; give shards with members such as KEY.jpg")
        order = _order_of_parts(names)
        self._names = NameTable(names[place] for place in order.tolist())
        self._shard, self._offsets, self._sizes = self._shard[order], self._offsets[order], self._sizes[order]
        self._open = lru_cache(OPEN_SHARDS)(opened)
        self.classes, self.labels = self._labels(indices, order) if labeled else UNLABELED

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> bytes:
        shard, offset, size = self._place(index)
        # The file is referred to until it has been read: another thread may drive it out of the cache.
        return read_member(self._open(self._shards[shard]), offset, size)

    def name(self, index: int) -> str:
        return self._names[index]

    def locate(self, index: int) -> str:
        return printable(f"{self._shards[self._place(index)[0]]}:{self._names[index]}")

    def files(self) -> Iterator[Path | RemoteFile]:
        """The shards."""
        return iter(self._shards)

    def _place(self, index: int) -> tuple[int, int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return int(self._shard[index]), int(self._offsets[index]), int(self._sizes[index])

    def _labels(self, indices: list[ShardIndex], order: npt.NDArray[np.int64]) -> Labeling:
        classes, labels = joined_labels([(index.classes, index.labels) for index in indices])
        labels = labels[order]
        if labels.max() >= 0:
            refuse_missing_labels(self, labels, "images without a KEY.cls, so the shards have no labels")
            return classes, labels
        classes, labels = folder_labels((self._names[index] for index in range(len(self))), "/")
        if len(classes) < 2 or labels.min() < 0:
            raise ValueError(
                f"{_listed(self._shards)} has neither KEY.cls members nor class folders, so it has no labels; "
                "add them, or turn off what needs labels"
            )
        return classes, labels


def read_member(file: OpenFile | RemoteFile, offset: int, size: int) -> bytes:
    """The ``size`` bytes of a member at ``offset``. Raises UnreadableImage, OSError, StoreUnavailable."""
    if size > MAX_ENCODED_BYTES:
        raise UnreadableImage(f"the tar member claims {size:,} bytes")
    # With its header, in one call: a shard changed since it was indexed is noticed.
    content = file.read_at(offset - BLOCK, BLOCK + size)
    if len(content) < BLOCK + size or not is_header_of(content[:BLOCK], size):
        raise UnreadableImage("the tar file has changed since it was indexed; remove the .index file next to it")
    return content[BLOCK:]


def checked_index(shard: Path | RemoteFile) -> ShardIndex:
    """The index of a shard. Raises ValueError, which names it, for a damaged one; OSError, StoreUnavailable."""
    try:
        return load_index(shard)
    except DamagedTar as error:
        raise ValueError(f"{shard} {printable(str(error))}") from error


def one_image_per_sample(
    shard: Path | RemoteFile, index: ShardIndex, wanted: str | None, passed_over: Counter[str]
) -> ShardIndex:
    """The image of each sample that is read; the others are counted. Raises ValueError if two come into question."""
    order = np.argsort(index.samples, kind="stable")
    ends = np.flatnonzero(np.diff(index.samples[order], append=-1)) + 1
    if wanted == ALL_IMAGES or (wanted is None and len(ends) == len(order)):
        return index
    chosen = []
    for rows in np.split(order, ends[:-1]) if len(ends) else []:
        suffixes = {row: sample_key(index.names[row])[1].lower() for row in rows.tolist()}
        if wanted is not None:
            best = [row for row, suffix in suffixes.items() if suffix == wanted.lower().removeprefix(".")]
        else:
            ranks = {row: _rank(suffix) for row, suffix in suffixes.items()}
            best = [row for row, rank in ranks.items() if rank == min(ranks.values())]
        if len(best) > len({suffixes[row] for row in best}):
            raise ValueError(
                f"{shard} holds {printable(index.names[best[0]])} twice; make it again with each name once"
            )
        if len(best) > 1:
            listed = ", ".join(suffixes[row] for row in best)
            raise ValueError(
                f"{shard} holds samples of several images (the first: {printable(index.names[best[0]])}, "
                f"with {listed}); set tar_image={suffixes[best[0]]} to read this one of each, or tar_image={ALL_IMAGES}"
            )
        chosen += best
        passed_over.update(f".{suffix}" for row, suffix in suffixes.items() if row not in best)
    return index.only(np.sort(np.array(chosen, dtype=np.int64)))


def _rank(suffix: str) -> tuple[int, int]:
    return suffix.count("."), next(n for n, known in enumerate(IMAGE_SUFFIXES) if f".{suffix}".endswith(known))


def _unique_names(shards: Sequence[Path | RemoteFile], indices: list[ShardIndex]) -> list[bytes]:
    """All names, shard after shard; if shards share some, with the shard's file name in front."""
    names = [index.names.all_encoded() for index in indices]
    joined = list(chain.from_iterable(names))
    if len(set(joined)) == len(joined):
        return joined
    for shard, own in zip(shards, names, strict=True):
        if len(set(own)) < len(own):
            twice = printable(os.fsdecode(Counter(own).most_common(1)[0][0]))
            raise ValueError(f"{shard} holds {twice} twice; make it again with each name once")
    return [os.fsencode(shard.name) + b"/" + name for shard, own in zip(shards, names, strict=True) for name in own]


def _order_of_parts(names: list[bytes]) -> npt.NDArray[np.int64]:
    keys = [name.replace(b"/", b"\0") for name in names]  # so that a/1 comes before a-b/1
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


def _listed(shards: Sequence[Path | RemoteFile]) -> str:
    return str(shards[0]) if len(shards) == 1 else f"{shards[0]} … {shards[-1].name} ({len(shards)} shards)"
