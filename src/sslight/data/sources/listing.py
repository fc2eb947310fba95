"""Which images lie under a folder, remembered between runs."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from sslight.data.sources.names import NameTable
from sslight.data.sources.suffixes import HIDDEN, IMAGE_SUFFIXES, NO_FILE, THUMBNAIL_FOLDERS, is_image, passed_over_as
from sslight.data.sources.tables import SMALLEST_CACHED, Cached, Table, identity, is_settled


def list_images(root: str) -> tuple[NameTable, dict[str, int]]:
    """Paths of the images under ``root``, relative to it, in the order of their components; and what is no image.

    The latter counts files by suffix and hidden folders by name (see ``passed_over_in_words``). A large listing is
    kept in the user's cache, and used again while inode and time stamps of every directory in it are what they were,
    which adding, removing and renaming anything changes. Not kept are listings that these could not tell to be old:
    with directories changed within the last two seconds, and with links to files, whose targets come and go
    unnoticed. Raises OSError if a folder cannot be listed.
    """
    cached = Cached("listings", Path(root), list(IMAGE_SUFFIXES))
    known = _known(root, cached.read())
    if known is not None:
        return known
    started = time.time_ns()
    walk = _Walk(root)
    names = NameTable(walk.images("", ()))
    if len(names) >= SMALLEST_CACHED and not walk.met_file_link and is_settled(walk.identities, started):
        arrays = NameTable(walk.folders).arrays("folder_") | names.arrays()
        arrays["identities"] = np.array(walk.identities, dtype=np.int64).reshape(-1)
        cached.keep(Table({"passed_over": dict(+walk.passed_over)}, arrays))
    return names, dict(+walk.passed_over)


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
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        for entry in entries:
            name, is_hidden = entry.name, entry.name.startswith(".")
            is_folder = entry.is_dir()
            self.met_file_link |= not is_folder and not is_hidden and entry.is_symlink()
            if is_folder and (is_hidden or name.lower() in THUMBNAIL_FOLDERS):
                self.passed_over[f"{name}/"] += 1
            elif is_folder:
                yield from self.images(prefix + name + os.sep, (*ancestors, itself))
            elif is_hidden:
                self.passed_over[HIDDEN] += is_image(name)
            elif not is_image(name):
                self.passed_over[passed_over_as(name)] += 1
            elif entry.is_file():
                yield prefix + name
            else:
                self.passed_over[NO_FILE] += 1


def _known(root: str, table: Table | None) -> tuple[NameTable, dict[str, int]] | None:
    """What the table says, if every folder is what it was."""
    if table is None:
        return None
    with suppress(KeyError, ValueError, TypeError, AttributeError, OSError):
        folders = NameTable.from_arrays(table.arrays, "folder_")
        identities = table.arrays["identities"].reshape(len(folders), 3).tolist()
        if all(identity(Path(root + os.sep + folders[n]).stat()) == tuple(was) for n, was in enumerate(identities)):
            passed_over = {str(kind): int(number) for kind, number in table.head["passed_over"].items()}
            return NameTable.from_arrays(table.arrays), passed_over
    return None
