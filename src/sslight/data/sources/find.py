"""From what people write in lists to the image that they mean."""

import posixpath
from pathlib import PurePosixPath

from sslight.data.sources.source import Source


class NameFinder:
    """Called with an entry of a list, gives the index of the image that it means, or None.

    An entry is a name (``source.name``), a path that ends in one (absolute, with ``./``, or beginning with the
    folder's own name), the last part of a name where that is unique, with ``by_index`` a number, and with
    ``by_stem`` also a name without its suffix. The tables are built when first needed.
    """

    def __init__(self, source: Source, *, by_index: bool = True, by_stem: bool = False) -> None:
        self._source = source
        self._by_index, self._by_stem = by_index, by_stem
        self._names: dict[str, int] = {}
        self._last_parts: dict[str, int | None] = {}
        self._stems: dict[str, int | None] = {}

    def __call__(self, entry: str) -> int | None:
        if self._by_index and entry.isdecimal():
            return int(entry) if int(entry) < len(self._source) else None
        if (exact := self.by_name(entry)) is not None:
            return exact
        for written in (entry, entry.replace("\\", "/")):
            index = self._by_path(posixpath.normpath(written)) if written else None
            if index is not None:
                return index
        return self._stems_of_names().get(posixpath.normpath(entry)) if self._by_stem else None

    def by_name(self, name: str) -> int | None:
        """The image of exactly this name."""
        if not self._names:
            self._names = {self._source.name(index): index for index in range(len(self._source))}
        return self._names.get(name)

    def _by_path(self, path: str) -> int | None:
        if (index := self.by_name(path)) is not None:
            return index
        if "/" not in path:
            return self._by_last_part(path)
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

    def _by_last_part(self, name: str) -> int | None:
        if not self._last_parts:
            for index in range(len(self._source)):
                last = self._source.name(index).rpartition("/")[2]
                self._last_parts[last] = None if last in self._last_parts else index
        return self._last_parts.get(name)

    def _stems_of_names(self) -> dict[str, int | None]:
        if not self._stems:
            for index in range(len(self._source)):
                name = PurePosixPath(self._source.name(index))
                for stem in {str(name.with_suffix("")), name.stem}:
                    self._stems[stem] = None if stem in self._stems else index
        return self._stems
