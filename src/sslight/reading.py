"""Files from outside, read only if they are ordinary and not too large."""

import os
import stat
from contextlib import suppress
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif", ".hif", ".avif"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
)
"""Suffixes, in small letters, of the formats that ``decode`` reads."""

_LOOKED_AT = 10_000  # names in a folder among which a near one is looked for


def near_name(path: str | Path) -> str:
    """``; did you mean runs/first?`` where a path that does not exist has such a neighbor, else a full stop."""
    path, found = Path(os.path.expanduser(path)), []  # noqa: PTH111 - never raises
    if os.path.exists(path):  # noqa: PTH110
        return "."
    with suppress(OSError, ValueError), os.scandir(path.parent) as entries:
        found = get_close_matches(path.name, [entry.name for entry in islice(entries, _LOOKED_AT)], n=1)
    return f"; did you mean {path.parent / found[0]}?" if found else "."


def read_ordinary(path: str | Path, *, largest: int) -> bytes:
    """The bytes of a file that has at most ``largest`` of them, known before memory is taken.

    Pipes, sockets and devices, which may be waited for without end, are not read. Raises ValueError
    with the reason alone for these, for folders and for larger files; OSError if it cannot be opened or read.
    """
    # Without O_NONBLOCK, opening a pipe waits until somebody writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = "folder" if stat.S_ISDIR(status.st_mode) else "pipe, socket or device"
            raise ValueError(f"it is a {kind}, not a file")
        if status.st_size > largest:
            raise ValueError(f"it has {status.st_size:,} bytes, more than the {largest:,} that are read of such a file")
        with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
            return file.readall()
    finally:
        os.close(descriptor)
