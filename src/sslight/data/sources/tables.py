"""Arrays kept in a safetensors file between runs, with a checksum; and the user's cache of such files."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

LARGEST_TABLE = 2**37
"""Bytes of a table that is read at most: names and places of more than a billion images."""

_KINDS = frozenset({"|u1", "<i4", "<i8"})


@dataclass(frozen=True)
class Table:
    """Named one-dimensional arrays (uint8, int32 or int64) and a head of plain data."""

    head: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]


def write_table(path: Path, table: Table) -> None:
    """Write the table whole or not at all. Raises OSError."""
    arrays = {name: np.ascontiguousarray(array) for name, array in table.arrays.items()}
    assert all(_is_allowed(array) for array in arrays.values())
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
        if checksum == _checksum(head, arrays) and all(_is_allowed(array) for array in arrays.values()):
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


def _is_allowed(array: npt.NDArray[Any]) -> bool:
    return array.ndim == 1 and array.dtype.str in _KINDS


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


class CachedFile:
    """What the user's cache keeps about one file; of use only while the file is unchanged."""

    def __init__(self, kind: str, path: Path) -> None:
        status = path.stat()
        self._kind, self._path = kind, path
        self._identity = identity(status)
        self._key = [*self._identity, status.st_size]
        self._now_ns = time.time_ns()

    def read(self) -> Table | None:
        """The table kept for the file as it is now."""
        table = cached_table(self._kind, self._path)
        return table if table is not None and table.head.get("file") == self._key else None

    def keep(self, table: Table) -> None:
        """Keep a table made from the file since this object was built."""
        if is_settled([self._identity], self._now_ns):
            cache_table(self._kind, self._path, Table({**table.head, "file": self._key}, table.arrays))


def cached_table(kind: str, subject: Path | str) -> Table | None:
    """What :func:`cache_table` kept for ``subject``, a path or any other name.

    None if there is nothing of this user's, it is damaged, or all is to be listed anew.
    """
    path = _cache_file(kind, subject)
    with suppress(OSError):
        if os.environ.get(LIST_ANEW, "0") in ("", "0") and path.stat().st_uid == os.getuid():
            return read_table(path)
    return None


def cache_table(kind: str, subject: Path | str, table: Table) -> None:
    """Keep a table for the next run. Where the cache cannot be written, nothing is kept."""
    path = _cache_file(kind, subject)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_table(path, table)


def _cache_file(kind: str, subject: Path | str) -> Path:
    default = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser(default)  # noqa: PTH111 - never raises
    known_as = subject if isinstance(subject, str) else os.path.realpath(subject)
    name = hashlib.sha256(os.fsencode(known_as)).hexdigest()[:32]
    return Path(base, "sslight", kind, name)
