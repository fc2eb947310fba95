"""Which images lie under a folder, remembered between runs."""

import heapq
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from sslight.data.sources.names import NameTable
from sslight.data.sources.suffixes import HIDDEN, IMAGE_SUFFIXES, NO_FILE, THUMBNAIL_FOLDERS, is_image, passed_over_as
from sslight.data.sources.tables import SMALLEST_CACHED, Cached, Table, identity, is_settled

LARGEST_PART = 2**17  # Entries of a folder that are sorted in memory: as objects they take 200 bytes each


def list_images(root: str) -> tuple[NameTable, dict[str, int]]:
    """Paths of the images under ``root``, relative to it, in the order of their components; and what is no image.

    The latter counts files by suffix and hidden folders by name (see ``passed_over_in_words``). A large listing is
    kept in the user's cache, and used again while inode and time stamps of every directory in it are what they were,
    which adding, removing and renaming anything changes. Listings that these could not tell to be old (with directories
    changed within the last two seconds, and with links to files, whose targets come and go unnoticed) are only used by
    processes that waited for them. Raises OSError if a folder cannot be listed.
    """
    cached = Cached("listings", Path(root), list(IMAGE_SUFFIXES))
    if (known := _known(root, cached.read())) is not None:
        return known
    with cached.first_here() as is_first:
        if not is_first and (known := _known(root, cached.read(), waited=True)) is not None:
            return known
        started = time.time_ns()
        walk = _Walk(root)
        names = NameTable(walk.images("", ()))
        passed_over = dict(+walk.passed_over)
        if len(names) >= SMALLEST_CACHED:
            lasts = not walk.met_file_link and is_settled(walk.identities, started)
            arrays = NameTable(walk.folders).arrays("folder_") | names.arrays()
            arrays["identities"] = np.array(walk.identities, dtype=np.int64).reshape(-1)
            if cached.keep(Table({"passed_over": passed_over, "lasts": lasts}, arrays)):
                del names, arrays  # before they are in memory a second time, as pages of the file that others share
                kept = cached.read(also_anew=True)
                names = NameTable(walk.images("", ())) if kept is None else NameTable.from_arrays(kept.arrays)
    return names, passed_over


class _Walk:
    """One pass over a folder: the images, and what must stay the same for the result to stay true."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.folders: list[str] = []
        self.identities: list[tuple[int, int, int]] = []
        self.met_file_link = False
        self.passed_over: Counter[str] = Counter()

    def images(self, prefix: str, ancestors: tuple[tuple[int, int], ...]) -> Iterator[str]:
        """Names of the images in the folder ``prefix`` (empty, or its relative path and a separator)."""
        folder = self._root + os.sep + prefix
        status = Path(folder).stat()
        self.folders.append(prefix)
        self.identities.append(identity(status))
        itself = (status.st_dev, status.st_ino)
        if itself in ancestors:
            return
        for name, kind in _sorted_entries(folder):
            is_hidden, is_folder = name.startswith("."), kind == _FOLDER
            self.met_file_link |= kind in (_LINK, _BROKEN_LINK) and not is_hidden
            if is_folder and (is_hidden or name.lower() in THUMBNAIL_FOLDERS):
                self.passed_over[f"{name}/"] += 1
            elif is_folder:
                yield from self.images(prefix + name + os.sep, (*ancestors, itself))
            elif is_hidden:
                self.passed_over[HIDDEN] += is_image(name)
            elif not is_image(name):
                self.passed_over[passed_over_as(name)] += 1
            elif kind in (_FILE, _LINK):
                yield prefix + name
            else:
                self.passed_over[NO_FILE] += 1


_FOLDER, _FILE, _LINK, _BROKEN_LINK, _OTHER = "dflbo"  # what an entry is; links are to files, or to nothing


def _sorted_entries(folder: str) -> Iterator[tuple[str, str]]:
    """Names and kinds in a folder, by name; of a large folder only so many in memory, the others in temporary files."""
    with os.scandir(folder) as listing, ExitStack() as files:
        parts: list[Iterable[tuple[str, str]]] = []
        while part := sorted((entry.name, _kind_of(entry)) for entry in islice(listing, LARGEST_PART)):
            if len(part) == LARGEST_PART:
                file = files.enter_context(
                    tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape", newline="")
                )
                file.writelines(f"{name}/{kind}\0" for name, kind in part)
                parts.append(_read_back(file))
            else:
                parts.append(part)
        yield from parts[0] if len(parts) == 1 else heapq.merge(*parts)


def _read_back(file: IO[str]) -> Iterator[tuple[str, str]]:
    file.seek(0)
    rest = ""
    while block := file.read(2**16):
        *lines, rest = (rest + block).split("\0")
        for line in lines:
            yield line[:-2], line[-1]


def _kind_of(entry: os.DirEntry[str]) -> str:
    if entry.is_dir():
        return _FOLDER
    if entry.is_symlink():
        return _LINK if entry.is_file() else _BROKEN_LINK
    return _FILE if entry.is_file() else _OTHER


def _known(root: str, table: Table | None, *, waited: bool = False) -> tuple[NameTable, dict[str, int]] | None:
    """What the table says, if every folder is what it was."""
    if table is None or not (waited or table.head.get("lasts", True)):
        return None
    with suppress(KeyError, ValueError, TypeError, AttributeError, OSError):
        folders = NameTable.from_arrays(table.arrays, "folder_")
        identities = table.arrays["identities"].reshape(len(folders), 3).tolist()
        if all(identity(Path(root + os.sep + folders[n]).stat()) == tuple(was) for n, was in enumerate(identities)):
            passed_over = {str(kind): int(number) for kind, number in table.head["passed_over"].items()}
            return NameTable.from_arrays(table.arrays), passed_over
    return None
