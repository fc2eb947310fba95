"""Files and folders that are written whole or not at all."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

PATIENCE = 600.0  # Seconds in which another process gets something done, or counts as gone
BETWEEN_SIGNS = 60.0  # Seconds between two lines of a process that waits for others


@contextmanager
def whole_file(path: Path, mode: str, *, before_rename: Callable[[], None] | None = None) -> Iterator[IO[Any]]:
    """A file (``mode`` is ``w`` or ``wb``) written beside ``path``, synced and renamed onto it.

    Readers see the old content or the new, never a part; after an error the old content stays.
    ``before_rename`` is called when the new content is safe on the disk and the old one still in its place.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        text = "b" not in mode
        with partial.open(mode, encoding="utf-8" if text else None, newline="" if text else None) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if before_rename is not None:
            before_rename()
        partial.replace(path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def check_new(path: Path, setting: str) -> None:
    """Raise ValueError if a file that is to be written has no folder that can be written to, or is there already."""
    if not path.absolute().parent.is_dir():
        raise ValueError(f"{setting}={path}: there is no folder {path.parent}; make it first.")
    if path.exists():
        raise ValueError(f"{setting}={path} exists: name another file, or remove it.")
    try:
        with TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise ValueError(f"{setting}={path} cannot be written ({error.strerror}): choose another folder.") from None


def unused(path: Path) -> Path:
    """A path that nothing has yet: this one, or with ``-2``, ``-3``, ... at its end."""
    return next(p for p in chain([path], (path.with_name(f"{path.name}-{n}") for n in count(2))) if not p.exists())


def wait_for(files: Sequence[Path], what: str) -> None:
    """Until all files are there that other processes write, or no more has come for ten minutes.

    Every minute standard error says which of them, each a ``what``, is awaited: a slow process looks like a dead one.
    """
    missing, since, said = len(files), time.monotonic(), 0.0
    while left := [number for number, file in enumerate(files, 1) if not file.is_file()]:
        if len(left) < missing:
            missing, since, said = len(left), time.monotonic(), 0.0
        waited = time.monotonic() - since
        line = f"{what} {left[0]} of {len(files)}, which another process has not written ({len(left)} missing)"
        if waited > PATIENCE:
            print(f"{waited:.0f} s without a new one: this process goes on itself, with {line}", file=sys.stderr)
            return
        if waited - said >= BETWEEN_SIGNS:
            said = waited
            print(f"waiting for {line}, {waited:.0f} s of at most {PATIENCE:.0f}", file=sys.stderr, flush=True)
        time.sleep(0.2)


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_partial_files(folder: Path) -> None:
    """Remove what a killed process left of files that it was writing in ``folder``; nobody may be writing there."""
    for partial in folder.glob(".*.partial"):
        partial.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all; bytes of file names that are no UTF-8 are written as escapes."""
    with whole_file(path, "w") as file:
        file.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder, filled under another name beside ``path`` and renamed to it at the end.

    After an error nothing is left. ``path`` must not exist, or be empty.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                with file.open("rb") as content:
                    os.fsync(content.fileno())
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
