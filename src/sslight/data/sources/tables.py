"""Arrays kept in a safetensors file between runs, with a checksum; and the user's cache of such files."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from sslight.files import whole_file
from sslight.reading import read_ordinary

_KEY = "sslight table 2"
_MAGIC = f'{{"__metadata__":{{"{_KEY}":'.encode()
"""Follows on the eight bytes of the header's length: the one entry of the metadata holds checksum and head."""

SETTLED_NS = 2_000_000_000
"""Age from which on a time stamp tells every later change apart: the coarsest clocks (FAT) count two seconds."""

LIST_ANEW = "SSLIGHT_LIST_ANEW"
"""Environment variable: set to 1, nothing that the user's cache holds is used, but all is listed anew and kept."""

SMALLEST_CACHED = 1000  # Images from which on it is kept what lies where: below, looking again takes milliseconds
LARGEST_TABLE = 2**37  # Bytes of a table that is read at most: names and places of more than a billion images
_KINDS = frozenset({"|u1", "<i4", "<i8"})


Index = TypeVar("Index")


@dataclass(frozen=True)
class Table:
    """Named one-dimensional arrays (uint8, int32 or int64) and a head of plain data."""

    head: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]

    def column(self, name: str, dtype: npt.DTypeLike, length: int) -> npt.NDArray[Any]:
        """One of the arrays. Raises ValueError if there is none of this type and length."""
        array = self.arrays.get(name)
        if array is None or array.dtype != dtype or len(array) != length:
            raise ValueError(f"the table has no {length} {name}")
        return array

    def byte_ranges(self, length: int, *, lowest: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Offsets from ``lowest`` on and sizes in a file of ``num_bytes``. Raises ValueError for any that are not."""
        offsets, sizes = (self.column(name, np.int64, length) for name in ("offsets", "sizes"))
        if np.any((offsets < lowest) | (sizes < 0) | (offsets > self.head["num_bytes"] - sizes)):
            raise ValueError("the table has places outside its file")
        return offsets, sizes


def index_from(parse: Callable[[Table], Index], table: Table | None, num_bytes: int) -> Index | None:
    """What ``parse`` makes of a table if it is for a file of this size and its content fits."""
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        if table is not None and table.head.get("num_bytes") == num_bytes:
            return parse(table)
    return None


def write_table(path: Path, table: Table) -> None:
    """Write the table whole or not at all. Raises OSError."""
    arrays = {name: np.ascontiguousarray(array) for name, array in table.arrays.items()}
    head = json.dumps(table.head)
    with whole_file(path, "wb") as file:
        file.write(safetensors.save(arrays, {_KEY: _checksum(head, arrays) + head}))


def read_table(path: Path) -> Table | None:
    """The table in the file; None if there is none, it is damaged or of another format."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not is_table(os.pread(descriptor, 64, 0)):
                return None
        finally:
            os.close(descriptor)
        return table_from(read_ordinary(path, largest=LARGEST_TABLE))
    except (OSError, ValueError):
        return None


def is_table(start: bytes) -> bool:
    """Whether a file that begins with these bytes, 64 or more, may be a table: a foreign one need not be read whole."""
    return start[8:].startswith(_MAGIC)


def table_from(content: bytes) -> Table | None:
    """The table that a file of these bytes holds; None if it is damaged or of another format."""
    if not is_table(content):
        return None
    try:
        # The checksum holds against damage, not against malice: who uses a table checks its numbers.
        described = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"][_KEY]
        arrays = safetensors.load(content)
        checksum, head = described[:64], described[64:]
        are_allowed = all(array.ndim == 1 and array.dtype.str in _KINDS for array in arrays.values())
        if are_allowed and checksum == _checksum(head, arrays):
            return Table(dict(json.loads(head)), arrays)
    except (SafetensorError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        pass
    return None


def _checksum(head: str, arrays: dict[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256(head.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}{array.dtype.str}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def identity(status: os.stat_result) -> tuple[int, int, int]:
    """What changes with a file or a directory: inode, time of the last change of its content and of the inode, in ns.

    The last cannot be set back, as copying programs do with the one before.
    """
    return status.st_ino & 0x7FFF_FFFF_FFFF_FFFF, status.st_mtime_ns, status.st_ctime_ns


def is_settled(identities: Collection[tuple[int, int, int]], now_ns: int) -> bool:
    """Whether all were last changed so long before ``now_ns`` that any change after it shows in the time stamps.

    Not where times show nothing: mounts of stores give all folders time 0, or the one of the mount.
    """
    changes = [max(mtime, ctime) for _, mtime, ctime in identities]
    are_one = len(changes) > 1 and max(changes) - min(changes) < SETTLED_NS
    return min(changes) > 0 and not are_one and max(changes) < now_ns - SETTLED_NS


@dataclass(frozen=True)
class Cached:
    """What the user's cache keeps about one file or folder; of use only while ``version`` (plain data) is what it was.

    Without a version nothing is kept, nor an index of fewer images than ``smallest``.
    """

    kind: str
    subject: Path | str
    version: object
    smallest: int = 0

    def read(self) -> Table | None:
        """The table kept for this version; None if there is nothing of this user's, or all is to be listed anew."""
        if self.version is None:
            return None
        with suppress(OSError):
            if os.environ.get(LIST_ANEW, "0") in ("", "0") and self._path.stat().st_uid == os.getuid():
                table = read_table(self._path)
                return table if table is not None and table.head.get("version") == self.version else None
        return None

    def index(
        self,
        num_bytes: int,
        parse: Callable[[Table], Index],
        scan: Callable[[], Index],
        as_table: Callable[[Index, int], Table],
    ) -> Index:
        """The index kept, else what ``scan`` finds, which is kept."""
        known = index_from(parse, self.read(), num_bytes)
        if known is not None:
            return known
        index = scan()
        table = as_table(index, num_bytes)
        if len(table.arrays["ends"]) >= self.smallest:
            self.keep(table)
        return index

    def keep(self, table: Table) -> None:
        """Keep a table made from the file since this object was built."""
        if self.version is not None:
            with suppress(OSError):  # where the cache cannot be written, nothing is kept
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_table(self._path, Table({**table.head, "version": self.version}, table.arrays))

    @property
    def _path(self) -> Path:
        known_as = self.subject if isinstance(self.subject, str) else os.path.realpath(self.subject)
        return cache_folder(self.kind) / hashlib.sha256(os.fsencode(known_as)).hexdigest()[:32]


def cache_folder(kind: str) -> Path:
    """Where the user's cache keeps things of a kind; the folder may be missing."""
    default = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser(default)  # noqa: PTH111 - never raises
    return Path(base, "sslight", kind)


def cached_file(kind: str, path: Path) -> Cached:
    """What the cache keeps about a file of this machine; one that was changed just now has no version."""
    status = path.stat()
    version = [*identity(status), status.st_size] if is_settled([identity(status)], time.time_ns()) else None
    return Cached(kind, path, version, SMALLEST_CACHED)
