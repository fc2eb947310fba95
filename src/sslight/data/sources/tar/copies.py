"""Whole shards of a store on a disk of this machine."""

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sslight.data.sources.tables import cache_folder, index_from, is_table, table_from, write_table
from sslight.data.sources.tar.index import ShardIndex, index_path, scan
from sslight.data.sources.tar.remote import RemoteFile

_KIND = "copies"
_PART = 2**24  # Bytes that are asked for at a time
_LEFT_FREE = 2**30  # Bytes of the disk that copies never take


class ShardCopies:
    """Copies of remote shards with their indexes in the user's cache, of ``budget`` bytes in all.

    All processes of a machine share them, and one copies a shard for all. The least recently used are removed first,
    also where the disk is nearly full; who has one open may go on reading. A shard of which the store tells no version
    has no copy.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget

    def find(self, shard: RemoteFile) -> Path | None:
        """The copy of this version of the shard, if there is one; it counts as used now."""
        path = self._path(shard)
        if path is not None:
            with suppress(OSError):
                os.utime(path)
                return path
        return None

    def make(self, shard: RemoteFile) -> None:
        """Copy the shard unless there is a copy. Raises StoreUnavailable, OSError, DamagedTar."""
        path = self._path(shard)
        if path is None or self.find(shard) is not None:
            return
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_suffix(".partial")
        with _locked(partial) as descriptor:
            if self.find(shard) is not None:  # another process made it meanwhile
                partial.unlink(missing_ok=True)
                return
            try:
                os.truncate(descriptor, 0)
                self._make_room(shard.size)
                for start in range(0, shard.size, _PART):
                    part = memoryview(shard.read_at(start, _PART))
                    while part:
                        part = part[os.write(descriptor, part) :]
                beside = table_from(shard.beside(".index", is_table) or b"")
                index = index_from(ShardIndex.from_table, beside, shard.size) or scan(partial)
                write_table(index_path(path), index.table(shard.size))
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)  # or what failed would keep its room

    def _make_room(self, needed: int) -> None:
        # What a killed process left half copied goes like the rest, as the oldest.
        paths = [path for path in cache_folder(_KIND).glob("*") if path.suffix in (".tar", ".partial")]
        found = [(path.stat(), path) for path in paths]
        held = sum(status.st_size for status, _ in found)
        budget = min(self.budget, held + shutil.disk_usage(cache_folder(_KIND)).free - _LEFT_FREE)
        for status, copy in sorted(found, key=lambda each: each[0].st_mtime_ns):
            if held + needed > budget:
                held -= status.st_size
                copy.unlink(missing_ok=True)
                index_path(copy).unlink(missing_ok=True)
        if held + needed > budget:
            raise OSError(errno.ENOSPC, f"there is no room for {needed:,} bytes", str(cache_folder(_KIND)))

    def _path(self, shard: RemoteFile) -> Path | None:
        if shard.version is None:
            return None
        key = hashlib.sha256(f"{shard}\n{shard.version}\n{shard.size}".encode()).hexdigest()[:32]
        return cache_folder(_KIND) / f"{key}.tar"


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """An open file that no other process has locked: the one that is at ``path`` once it is ours."""
    while True:
        descriptor, is_there = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                is_there = path.stat().st_ino == os.fstat(descriptor).st_ino
            if is_there:  # the one before has not renamed it
                yield descriptor
                return
        finally:
            os.close(descriptor)
