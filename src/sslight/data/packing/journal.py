"""A file for h5py to write into that a crash at any moment leaves as it was at the last commit."""

import os
from io import SEEK_CUR, SEEK_END, SEEK_SET
from pathlib import Path
from typing import Any

import numpy as np

from sslight.data.sources.tables import Table, read_table, write_table

PAGE = 4096


class JournaledFile:
    """A binary file whose changes become durable at :meth:`commit`, all or none.

    HDF5 changes its own structures in place, and a process killed meanwhile leaves a file that
    cannot be opened. Here, what goes beyond the committed length is written at once, where a crash
    leaves only a tail to cut off. Pages before it are changed in memory; a commit writes them to
    the ``journal``, which replaces the former one whole, and only then into the file. Opening
    applies the journal again, which does no harm if it had been applied.

    ``state`` is what the last commit was given, None for a new file. Raises ValueError if file and
    journal do not belong together.
    """

    def __init__(self, path: Path, journal: Path) -> None:
        self._journal = journal
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._pages: dict[int, bytearray] = {}
        self._position = 0
        self._committed = 0
        self._abandoned = False
        self.state: dict[str, Any] | None = None
        table = read_table(journal)
        if table is None:
            os.ftruncate(self._descriptor, 0)
        elif os.fstat(self._descriptor).st_size < table.head["num_bytes"]:
            raise ValueError(f"{path} is shorter than {journal} says; remove {path.parent} and start again")
        else:
            self._apply(table)
        self._num_bytes = self._committed

    def commit(self, state: dict[str, Any]) -> None:
        """Make all that was written since the last commit durable, together with ``state``. Raises OSError."""
        if os.fstat(self._descriptor).st_size < self._num_bytes:
            os.ftruncate(self._descriptor, self._num_bytes)
        os.fsync(self._descriptor)
        pages = {"pages": np.array(sorted(self._pages), dtype=np.int64)}
        content = b"".join(bytes(self._pages[number]) for number in sorted(self._pages))
        table = Table(
            {"num_bytes": self._num_bytes, "state": state}, pages | {"content": np.frombuffer(content, dtype=np.uint8)}
        )
        write_table(self._journal, table)
        self._apply(table)

    def abandon(self) -> None:
        """Drop what was not committed, and take later writes without effect, as HDF5 makes them when it closes."""
        self._abandoned = True

    def close(self) -> None:
        """Close the file; what was not committed is lost."""
        os.close(self._descriptor)

    def _apply(self, table: Table) -> None:
        content = table.arrays["content"].tobytes()
        for place, number in enumerate(table.arrays["pages"].tolist()):
            self._write_at(number * PAGE, memoryview(content)[place * PAGE : (place + 1) * PAGE])
        self._committed = table.head["num_bytes"]
        os.ftruncate(self._descriptor, self._committed)
        self._pages = {}
        self.state = table.head["state"]

    def _write_at(self, offset: int, data: memoryview) -> None:
        while data:
            written = os.pwrite(self._descriptor, data, offset)
            offset, data = offset + written, data[written:]

    # What h5py asks of a file object.

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Move to ``offset``."""
        self._position = offset + {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: self._num_bytes}[whence]
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def read(self, count: int = -1) -> bytes:
        """So many bytes, or all that are left; zeros where nothing was written."""
        start = self._position
        end = self._num_bytes if count < 0 else start + count
        parts = []
        for number in range(start // PAGE, -(-end // PAGE)):
            first, last = max(start - number * PAGE, 0), min(end - number * PAGE, PAGE)
            parts.append(bytes(self._page(number)[first:last]))
        self._position = max(start, end)
        return b"".join(parts)

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer``."""
        buffer[:] = self.read(len(buffer))
        return len(buffer)

    def write(self, data: memoryview) -> int:
        """Write at the position. Raises OSError."""
        data = memoryview(data).cast("B")
        start, end = self._position, self._position + len(data)
        if not self._abandoned:
            open_from = self._open_from()
            for number in range(start // PAGE, -(-min(end, open_from) // PAGE)):
                self._pages[number] = page = self._page(number)
                first, last = max(start, number * PAGE), min(end, (number + 1) * PAGE)
                page[first - number * PAGE : last - number * PAGE] = data[first - start : last - start]
            if end > open_from:
                first = max(start, open_from)
                self._write_at(first, data[first - start :])
        self._position = end
        self._num_bytes = max(self._num_bytes, end)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Set the length; nothing that was committed is cut off before the next commit."""
        size = self._position if size is None else size
        if size < self._num_bytes and not self._abandoned:
            # What is cut off must read as zeros if the file grows again.
            open_from = self._open_from()
            if os.fstat(self._descriptor).st_size > max(size, open_from):
                os.ftruncate(self._descriptor, max(size, open_from))
            for number in range(size // PAGE, -(-min(self._num_bytes, open_from) // PAGE)):
                self._pages[number] = page = self._page(number)
                first = max(0, size - number * PAGE)
                page[first:] = bytes(PAGE - first)
        self._num_bytes = size
        return size

    def flush(self) -> None:
        """Nothing: :meth:`commit` is what makes changes durable."""

    def _open_from(self) -> int:
        """From this offset on, nothing is committed, in whole pages."""
        return -(-self._committed // PAGE) * PAGE

    def _page(self, number: int) -> bytearray:
        page = self._pages.get(number)
        if page is None:
            page = bytearray(os.pread(self._descriptor, PAGE, number * PAGE))
            page.extend(bytes(PAGE - len(page)))
        return page
