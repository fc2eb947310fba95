"""From what people write in lists to the image that they mean."""

import posixpath
from collections.abc import Iterable
from functools import cached_property
from pathlib import PurePosixPath

from sslight.data.sources.names import printable
from sslight.data.sources.source import Source


class NameFinder:
    """Called with an entry of a list, gives the index of the image that it means, or None.

    An entry is a name (``source.name``, or as ``printable`` writes it), a path that ends in one (absolute, with
    ``./``, or beginning with the folder's own name), the last part of a name where that is unique, with ``by_index`` a
    number, and with ``by_stem`` also a name without its suffix. The tables are built when first needed.
    """

    def __init__(self, source: Source, *, by_index: bool = True, by_stem: bool = False) -> None:
        self._source = source
        self._by_index, self._by_stem = by_index, by_stem

    def __call__(self, entry: str) -> int | None:
        if self._by_index and entry.isdecimal():
            return int(entry) if int(entry) < len(self._source) else None
        if (exact := self.by_name(entry)) is not None:
            return exact
        for written in (entry, entry.replace("\\", "/")):
            index = self._by_path(posixpath.normpath(written)) if written else None
            if index is not None:
                return index
        return self._stems.get(posixpath.normpath(entry)) if self._by_stem else None

    def by_name(self, name: str) -> int | None:
        index = self._names.get(name)
        return self._escaped.get(name) if index is None and "\\" in name else index

    def _by_path(self, path: str) -> int | None:
        if (index := self.by_name(path)) is not None:
            return index
        if "/" not in path:
            return self._last_parts.get(path)
        # The image lies where the path says: what stands in front of its name must be the way to its folder.
        parts = path.split("/")
        for start in range(1, len(parts)):
            index = self.by_name("/".join(parts[start:]))
            if index is not None and self._lies_at(index, path):
                return index
        return None

    def _lies_at(self, index: int, path: str) -> bool:
        place = posixpath.abspath(self._source.locate(index))
        if path.startswith("/"):
            return posixpath.realpath(place) == posixpath.realpath(path)
        return place.endswith(f"/{path}")

    @cached_property
    def _names(self) -> dict[str, int]:
        return {self._source.name(index): index for index in range(len(self._source))}

    @cached_property
    def _escaped(self) -> dict[str, int]:
        return {written: index for name, index in self._names.items() if (written := printable(name)) != name}

    @cached_property
    def _last_parts(self) -> dict[str, int | None]:
        return _where_unique((name.rpartition("/")[2], index) for name, index in self._names.items())

    @cached_property
    def _stems(self) -> dict[str, int | None]:
        paths = ((PurePosixPath(name), index) for name, index in self._names.items())
        return _where_unique((s, index) for path, index in paths for s in {str(path.with_suffix("")), path.stem})


def _where_unique(pairs: Iterable[tuple[str, int]]) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for word, index in pairs:
        found[word] = None if word in found else index
    return found
