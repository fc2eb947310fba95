"""Images in tar shards of which nothing is held but the number in each: for an order that goes shard by shard."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sslight.data.decoding.limits import one_line
from sslight.data.sources.names import printable
from sslight.data.sources.source import (
    UNLABELED,
    Labeling,
    folder_labels,
    joined_labels,
    part_at,
    refuse_missing_labels,
)
from sslight.data.sources.tar.copies import ShardCopies
from sslight.data.sources.tar.index import OpenFile, ShardIndex
from sslight.data.sources.tar.remote import RemoteFile, StoreUnavailable, is_remote, shown_address
from sslight.data.sources.tar.source import AT_ONCE, checked_index, one_image_per_sample, read_member
from sslight.reading import read_ordinary

SHARD_LIST = "index.json"  # Beside shards: the images and bytes of each, as `sslight data pack` and WebDataset write it
_LARGEST_SHARD_LIST = 2**30

SHARDS_ONLY = (
    "data.order=blocks goes through tar shards one after the other; pack the images first (sslight data pack IMAGES "
    "output=OUT), or leave out data.order"
)


@dataclass(frozen=True)
class Blocks:
    """How shards are gone through: ``window`` of them at a time, of remote ones copies of ``copy_bytes`` in all."""

    window: int
    copy_bytes: int

    def check_room(self, sources: Sequence["ShardedTarSource"]) -> None:
        """Raise ValueError if two windows of the remote shards of all ``sources`` are more than may be copied."""
        sizes = np.concatenate([source.shard_bytes for source in sources if source.has_copies] or [np.zeros(0, int)])
        needed = int(np.sort(sizes)[-2 * self.window :].sum())
        if needed > self.copy_bytes:
            raise ValueError(
                f"data.cache_gb={self.copy_bytes / 1e9:g} is less than two windows of data.window={self.window} "
                f"shards, {needed / 1e9:.3g} GB: raise the one, lower the other, or set data.cache_gb=0"
            )


class ShardedTarSource:
    """The images of tar shards, shard after shard, in each as they lie there; see ``TarSource`` for what is an image.

    The number of images in each shard is that of the ``index.json`` beside them if it lists them all; else, and for
    labels, all indexes are read at the start. A shard is opened when one of its images is first read. Names begin with
    their shard's. An image of a remote shard is one request, unless :meth:`copy_shard` has copied the shard.

    Raises as ``TarSource``. A shard that cannot be opened later raises StoreUnavailable, in a store or not: no image is
    to blame.
    """

    def __init__(
        self, shards: Sequence[Path | str], *, labeled: bool, blocks: Blocks, image: str | None = None
    ) -> None:
        assert shards
        self._shards, self._image, self._labeled = tuple(shards), image, labeled
        self._copies = ShardCopies(blocks.copy_bytes) if blocks.copy_bytes else None
        self._open = lru_cache(blocks.window + 1)(self._opened)
        listed = None if labeled or image is not None else _listed(self._shards)
        if listed is None:
            with ThreadPoolExecutor(AT_ONCE) as threads:
                seen = list(threads.map(self._seen, range(len(shards))))
        else:
            seen = listed
        self._sizes = np.array([(each.num_images, each.num_bytes) for each in seen], dtype=np.int64)
        self.ends = np.cumsum(self._sizes[:, 0])
        self.passed_over = dict(sum((each.passed_over for each in seen), Counter()))
        if not len(self):
            raise ValueError(f"{shown(shards[0])} has no images; give shards with members such as KEY.jpg")
        self.classes, self.labels = self._labeling(seen) if labeled else UNLABELED

    @property
    def has_copies(self) -> bool:
        """Whether some shards are in a store, and copied when :meth:`copy_shard` asks for it."""
        return self._copies is not None and any(is_remote(str(shard)) for shard in self._shards)

    @property
    def shard_bytes(self) -> npt.NDArray[np.int64]:
        """Size of each shard, int64 ``[S]``."""
        return self._sizes[:, 1]

    def __len__(self) -> int:
        return int(self.ends[-1])

    def read(self, index: int) -> bytes:
        shard, row = part_at(self.ends, index)
        return self._open(shard).read(row)

    def name(self, index: int) -> str:
        shard, row = part_at(self.ends, index)
        return f"{shown(self._shards[shard]).rpartition('/')[2]}/{self._open(shard).index.names[row]}"

    def locate(self, index: int) -> str:
        shard, row = part_at(self.ends, index)
        with suppress(StoreUnavailable):
            return printable(f"{shown(self._shards[shard])}:{self._open(shard).index.names[row]}")
        return printable(f"{shown(self._shards[shard])}:{row}")

    def copy_shard(self, index: int) -> None:
        """Copy the shard of an image to this machine's disk, if it is in a store. Raises OSError, StoreUnavailable."""
        shard = self._shards[part_at(self.ends, index)[0]]
        if self._copies is not None and isinstance(shard, str):
            self._copies.make(RemoteFile(shard))

    def shard_lines(self) -> Iterator[str]:
        """Name, images and bytes of each shard: what tells the set from another without all names."""
        for shard, (images, size) in zip(self._shards, self._sizes.tolist(), strict=True):
            yield f"{shown(shard).rpartition('/')[2]} {images} {size}"

    def _opened(self, number: int) -> "_OpenShard":
        shard, expected = self._shards[number], int(self._sizes[number, 0])
        try:
            opened = _OpenShard(RemoteFile(shard) if isinstance(shard, str) else shard, self._copies, self._image)
        except (OSError, ValueError) as error:
            raise StoreUnavailable(one_line(error)) from error
        if len(opened.index.names) != expected:
            raise StoreUnavailable(
                f"{shown(shard)} holds {len(opened.index.names)} images, not {expected}: if it has not changed, "
                f"remove the {SHARD_LIST} beside it; then start again"
            )
        return opened

    def _seen(self, number: int) -> "_Seen":
        shard = self._shards[number]
        where = RemoteFile(shard) if isinstance(shard, str) else shard
        passed_over: Counter[str] = Counter()
        index = one_image_per_sample(where, checked_index(where), self._image, passed_over)
        size = where.size if isinstance(where, RemoteFile) else where.stat().st_size
        return _Seen(len(index.names), size, index if self._labeled else None, passed_over)

    def _labeling(self, seen: list["_Seen"]) -> Labeling:
        indices = [each.index for each in seen if each.index is not None]
        classes, labels = joined_labels([(index.classes, index.labels) for index in indices])
        if labels.max() < 0:
            classes, labels = joined_labels(
                [folder_labels(map(index.names.__getitem__, range(len(index.names))), "/") for index in indices]
            )
        refuse_missing_labels(self, labels, "images without a KEY.cls or a folder, so the shards have no labels")
        if len(classes) < 2:
            raise ValueError(
                f"{shown(self._shards[0])} has neither KEY.cls members nor class folders, so it has no labels; "
                "add them, or turn off what needs labels"
            )
        return classes, labels


@dataclass(frozen=True)
class _Seen:
    """What is known of a shard: ``index`` only where labels are wanted of it."""

    num_images: int
    num_bytes: int
    index: ShardIndex | None = None
    passed_over: Counter[str] = field(default_factory=Counter)


class _OpenShard:
    """A shard with its index; it is read from its copy as soon as there is one."""

    def __init__(self, where: Path | RemoteFile, copies: ShardCopies | None, image: str | None) -> None:
        self._copies = copies if isinstance(where, RemoteFile) else None
        self._file = where if isinstance(where, RemoteFile) else OpenFile(where)
        try:
            index = checked_index(self._copy() or where)
        except FileNotFoundError:  # the copy had to make room just now
            index = checked_index(where)
        self.index = one_image_per_sample(where, index, image, Counter())

    def read(self, row: int) -> bytes:
        if isinstance(self._file, RemoteFile) and (copy := self._copy()) is not None:
            with suppress(FileNotFoundError):  # it had to make room just now
                self._file = OpenFile(copy)
        return read_member(self._file, int(self.index.offsets[row]), int(self.index.sizes[row]))

    def _copy(self) -> Path | None:
        return self._copies.find(self._file) if self._copies and isinstance(self._file, RemoteFile) else None


def shown(shard: Path | str) -> str:
    """A path, or an address without what may be secret."""
    return shown_address(shard) if isinstance(shard, str) else str(shard)


def _listed(shards: Sequence[Path | str]) -> list[_Seen] | None:
    """What the list beside the shards says of each; None if there is none or it lacks one."""
    first = shards[0]
    try:
        if isinstance(first, str):
            address, mark, query = first.partition("?")
            file = RemoteFile(f"{address.rpartition('/')[0]}/{SHARD_LIST}{mark}{query}")
            content = file.read_at(0, min(file.size, _LARGEST_SHARD_LIST))
        else:
            content = read_ordinary(first.parent / SHARD_LIST, largest=_LARGEST_SHARD_LIST)
        listed = {
            str(each["url"]): _Seen(int(each["nsamples"]), int(each["filesize"]))
            for each in json.loads(content)["shardlist"]
        }
        folder = shown(first).rpartition("/")[0]
        found = [listed[name] for at, _, name in (shown(shard).rpartition("/") for shard in shards) if at == folder]
    except (OSError, StoreUnavailable, ValueError, KeyError, TypeError, RecursionError):
        return None
    is_whole = len(found) == len(shards) and all(each.num_images >= 0 for each in found)
    return found if is_whole else None
