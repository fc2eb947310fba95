"""Arrays kept in a safetensors file between runs, with a checksum; and the user's cache of such files."""

import fcntl
import hashlib
import json
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

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
SMALLEST_MAPPED = 2**20  # Bytes of a table from which on it is not copied into memory
_KINDS = {"|u1": "U8", "<i4": "I32", "<i8": "I64"}
_OF_KIND = {name: np.dtype(kind) for kind, name in _KINDS.items()}

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
    """Write the table whole or not at all, as a safetensors file, without a copy in memory. Raises OSError."""
    # Wide numbers first: then all begin where their size divides the place.
    arrays = {name: np.ascontiguousarray(array) for name, array in table.arrays.items()}
    arrays = dict(sorted(arrays.items(), key=lambda each: (-each[1].itemsize, each[0])))
    head = json.dumps(table.head)
    described: dict[str, Any] = {"__metadata__": {_KEY: _checksum(head, arrays) + head}}
    start = 0
    for name, array in arrays.items():
        places = [start, start + array.nbytes]
        described[name] = {"dtype": _KINDS[array.dtype.str], "shape": [len(array)], "data_offsets": places}
        start = places[1]
    header = json.dumps(described, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with whole_file(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for array in arrays.values():
            file.write(array.data)


def read_table(path: Path, *, mapped: bool = False) -> Table | None:
    """The table in the file; None if there is none, it is damaged or of another format.

    A large one that is ``mapped`` stays in the file, so that all processes of a machine share its memory: only for
    files that are replaced and never changed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not is_table(os.pread(descriptor, 64, 0)):
                return None
            if mapped and os.fstat(descriptor).st_size >= SMALLEST_MAPPED:
                return table_from(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
        finally:
            os.close(descriptor)
        return table_from(read_ordinary(path, largest=LARGEST_TABLE))
    except (OSError, ValueError):
        return None


def is_table(start: bytes) -> bool:
    """Whether a file that begins with these bytes, 64 or more, may be a table: a foreign one need not be read whole."""
    return start[8:].startswith(_MAGIC)


def table_from(content: bytes | mmap.mmap) -> Table | None:
    """The table that a file of these bytes holds, in their memory; None if it is damaged or of another format."""
    if not is_table(content[:64]):
        return None
    try:
        # The checksum holds against damage, not against malice: who uses a table checks its numbers.
        start = 8 + int.from_bytes(content[:8], "little")
        described = json.loads(content[8:start])
        text = described.pop("__metadata__")[_KEY]
        checksum, head = text[:64], text[64:]
        arrays: dict[str, npt.NDArray[Any]] = {}
        end = 0
        for name, entry in sorted(described.items(), key=lambda each: each[1]["data_offsets"]):
            [length], places, kind = entry["shape"], entry["data_offsets"], _OF_KIND[entry["dtype"]]
            if places != [end, end + length * kind.itemsize]:
                return None
            arrays[name] = np.frombuffer(content, kind, length, start + end)
            end = places[1]
        if start + end == len(content) and checksum == _checksum(head, arrays):
            return Table(dict(json.loads(head)), arrays)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        pass
    return None


def _checksum(head: str, arrays: dict[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256(head.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}{array.dtype.str}".encode())
        digest.update(array.data)
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

    def read(self, *, also_anew: bool = False) -> Table | None:
        """The table kept for this version; None if there is nothing of this user's, or all is to be listed anew."""
        if self.version is None:
            return None
        with suppress(OSError):
            if (also_anew or os.environ.get(LIST_ANEW, "0") in ("", "0")) and self._path.stat().st_uid == os.getuid():
                table = read_table(self._path, mapped=True)
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

    def keep(self, table: Table) -> bool:
        """Keep a table made from the file since this object was built; whether it is kept."""
        if self.version is not None:
            with suppress(OSError):  # where the cache cannot be written, nothing is kept
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_table(self._path, Table({**table.head, "version": self.version}, table.arrays))
                return True
        return False

    @contextmanager
    def first_here(self) -> Iterator[bool]:
        """Whether this process is the first of those of this user and machine within it; others wait for its end."""
        lock = Path(tempfile.gettempdir(), f"sslight-{os.getuid()}-{self._path.name}.lock")
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            yield True
            return
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                yield False
            else:
                yield True
                lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

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
