"""Where the images of one tar shard lie, and what its labels are."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sslight.data.sources.names import NameTable
from sslight.data.sources.suffixes import IMAGE_SUFFIXES
from sslight.data.sources.tables import (
    Cached,
    Table,
    cached_file,
    index_from,
    is_table,
    read_table,
    table_from,
    write_table,
)
from sslight.data.sources.tar.members import BLOCK, DamagedTar, Member, ReadAt, is_header_of, tar_members
from sslight.data.sources.tar.remote import RemoteFile

CLASSES_MEMBER = "__meta__/classes.json"
"""First member of a packed shard: the class names, which the numbers in ``KEY.cls`` count. WebDataset
passes over members under ``__meta__``."""

LARGEST_LABEL = 1024  # Bytes of a ``KEY.cls`` at most
LARGEST_CLASS_LIST = 2**26
READ_AHEAD = 2**22  # Bytes of a remote shard that are read at a time when it has no index
_ARRAYS = ("offsets", "sizes", "samples", "labels")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_ESCAPE = re.compile(r"%([0-9A-F]{2})|%+(?=\.)")


@dataclass(frozen=True)
class ShardIndex:
    """The images of one shard: names, where their bytes are (within the shard), samples and labels.

    Images with the same number in ``samples`` have the same key; ``labels`` are positions in ``classes``, or -1.
    """

    names: NameTable
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    samples: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    classes: tuple[str, ...]

    def only(self, rows: npt.NDArray[np.int64]) -> "ShardIndex":
        names = self.names.all_encoded()
        arrays = {name: getattr(self, name)[rows] for name in _ARRAYS}
        return replace(self, names=NameTable(names[row] for row in rows.tolist()), **arrays)

    def table(self, num_bytes: int) -> Table:
        arrays = self.names.arrays() | {name: getattr(self, name) for name in _ARRAYS}
        return Table({"num_bytes": num_bytes, "classes": self.classes}, arrays)

    @classmethod
    def from_table(cls, table: Table) -> "ShardIndex":
        names = NameTable.from_arrays(table.arrays)
        offsets, sizes = table.byte_ranges(len(names))
        samples, labels = (table.column(name, np.int32, len(names)) for name in ("samples", "labels"))
        classes = tuple(str(name) for name in table.head["classes"])
        if np.any((labels < -1) | (labels >= len(classes))):
            raise ValueError("it has labels that are no positions in its classes")
        return cls(names, offsets, sizes, samples, labels, classes)


class OpenFile:
    """A file that is closed when nobody refers to it any more. It may cross a fork: ``pread`` shares no position."""

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._descriptor).st_size

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read_at(self, offset: int, count: int) -> bytes:
        return os.pread(self._descriptor, count, offset)


def opened(shard: Path | RemoteFile) -> OpenFile | RemoteFile:
    """A shard with its ``size`` and ``read_at``."""
    return shard if isinstance(shard, RemoteFile) else OpenFile(shard)


def load_index(shard: Path | RemoteFile) -> ShardIndex:
    """The index beside the shard or in the user's cache if one fits it, else from all headers of the shard.

    Raises DamagedTar, or OSError (StoreUnavailable) if the shard cannot be read.
    """
    file = opened(shard)
    if isinstance(shard, RemoteFile):
        beside = table_from(shard.beside(".index", is_table) or b"")
        cached = Cached("shards", str(shard), shard.version)
    else:
        beside = read_table(index_path(shard))
        cached = cached_file("shards", shard)
    index = index_from(ShardIndex.from_table, beside, file.size)
    if index is not None and _has_images_there(file.read_at, index):
        return index
    return cached.index(file.size, ShardIndex.from_table, lambda: scan(shard), ShardIndex.table)


class _ReadAhead:
    """Reads a remote file from front to back in large parts: headers lie between all the images."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._start = 0
        self._content = b""

    def __call__(self, offset: int, count: int) -> bytes:
        first = offset - self._start
        if first < 0 or first + count > len(self._content):
            self._start, first = offset, 0
            self._content = self._file.read_at(offset, max(count, READ_AHEAD))
        return self._content[first : first + count]


def _has_images_there(read_at: ReadAt, index: ShardIndex) -> bool:
    """Whether the first and the last image of the index begin after a header of their size."""
    return all(
        is_header_of(read_at(max(0, int(index.offsets[number]) - BLOCK), BLOCK), int(index.sizes[number]))
        for number in ({0, len(index.names) - 1} if len(index.names) else ())
    )


def write_index(shard: Path, index: ShardIndex) -> None:
    """Write the index beside its shard; it travels with it, so only the size identifies the shard."""
    write_table(index_path(shard), index.table(shard.stat().st_size))


def index_path(shard: Path) -> Path:
    """``shard-000000.tar`` → ``shard-000000.index``."""
    return shard.with_suffix(".index")


def scan(shard: Path | RemoteFile) -> ShardIndex:
    """The index from the shard's headers and labels: two reads an image, or large parts of a remote one."""
    file = opened(shard)
    read_at = _ReadAhead(file) if isinstance(file, RemoteFile) else file.read_at
    start = read_at(0, 6)
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            raise DamagedTar(f"is compressed ({name}), so single images cannot be read; unpack it to a plain .tar")
    return _index_of(tar_members(read_at, file.size), read_at)


def _index_of(members: Iterator[Member], read_at: ReadAt) -> ShardIndex:
    images: list[Member] = []
    texts: dict[str, str] = {}
    class_list: list[str] | None = None
    for member in members:
        key, suffix = sample_key(member.name)
        if member.name == CLASSES_MEMBER:
            if class_list not in (None, found := _class_list(member, read_at)):
                raise DamagedTar(f"holds two {CLASSES_MEMBER} that differ: give the original tar files")
            class_list = found
        elif any(part.startswith(".") for part in member.name.split("/")):
            continue
        elif member.name.lower().endswith(IMAGE_SUFFIXES):
            if member.is_link:
                raise DamagedTar(f"holds {member.name} as a link, and links are not followed; store the image itself")
            images.append(member)
        elif suffix.lower() == "cls" and not member.is_link:
            texts[key] = _label(member, read_at)
    keys = [sample_key(image.name)[0] for image in images]
    samples = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    labels = [texts.get(key) for key in keys]
    classes = class_list or sorted({text for text in labels if text is not None})
    position = {str(n): n for n in range(len(classes))} if class_list else {text: n for n, text in enumerate(classes)}
    if any(text is not None and text not in position for text in labels):
        raise DamagedTar(f"has labels that are not positions in its {CLASSES_MEMBER}")
    return ShardIndex(
        NameTable(unescaped(image.name) if class_list is not None else image.name for image in images),
        np.array([image.offset for image in images], dtype=np.int64),
        np.array([image.size for image in images], dtype=np.int64),
        np.array([samples[key] for key in keys], dtype=np.int32),
        np.array([-1 if text is None else position[text] for text in labels], dtype=np.int32),
        tuple(classes),
    )


def sample_key(name: str) -> tuple[str, str]:
    """Key and suffix as WebDataset cuts them, at the first dot of the last part: ``a/0.x.png`` → ``a/0``, ``x.png``."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return folder + slash + stem, suffix


def escaped(name: str) -> str:
    """The name with the dots before its suffix as ``%2E``, so that WebDataset sees each image as a sample."""
    folder, slash, last = name.rpartition("/")
    stem, dot, suffix = last.rpartition(".")
    return f"{folder}{slash}{stem.replace('%', '%25').replace('.', '%2E')}{dot}{suffix}"


def unescaped(name: str) -> str:
    """What :func:`escaped` was given; ``%`` before the suffix, which tells equal keys apart, is dropped."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else "", last)


def _label(member: Member, read_at: ReadAt) -> str:
    if member.size > LARGEST_LABEL:
        raise DamagedTar(f"holds {member.name} of {member.size:,} bytes, which is not a label")
    return read_at(member.offset, member.size).decode("utf-8", "replace").strip()


def _class_list(member: Member, read_at: ReadAt) -> list[str]:
    if member.size <= LARGEST_CLASS_LIST:
        try:
            content = json.loads(read_at(member.offset, member.size))
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, list) and all(isinstance(name, str) for name in content):
            return content
    raise DamagedTar(f"has a {CLASSES_MEMBER} that is not a list of names")
