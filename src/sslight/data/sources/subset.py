"""Which images of a source are used: a list file or a share."""

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sslight.data.sources.names import printable
from sslight.data.sources.source import Source


def select_subset(
    source: Source, subset: str | float, seed: int, *, setting: str = "data.subset"
) -> npt.NDArray[np.int64]:
    """Sorted indices of the images that ``subset`` selects, int64 ``[M]``.

    A string is a list file, one image a line: a name (``source.name``, or its last part where that
    is unique), an index, or ``index,label,wnid,filename`` as the original's lists have it, where
    ``wnid/filename`` is looked up first and the index, which counts sorted classes and then names,
    is used if there is no such name. Blank lines and lines from ``#`` on are ignored.

    A number is a share, 0 < share ≤ 1, drawn with ``seed``: ``share · n`` of the n images of each
    class, halves rounded up and at least one; of all images together if the source is unlabelled.
    A larger share with the same seed contains the smaller one.

    Raises ValueError with counts and the first few entries that do not fit; ``setting`` is the name
    that errors show.
    """
    if isinstance(subset, str):
        return _listed(source, subset, setting)
    if not 0.0 < subset <= 1.0:
        raise ValueError(f"{setting}={subset} is not a share; give a number above 0 and at most 1, or a list file")
    groups = np.zeros(len(source), dtype=np.int64) if source.labels is None else source.labels
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(source))
    by_group = order[np.argsort(groups[order], kind="stable")]  # each group's images, in drawn order
    sizes = np.bincount(groups)
    rank_in_group = np.arange(len(source)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    wanted = np.maximum(np.floor(subset * sizes + 0.5), 1)
    return np.sort(by_group[rank_in_group < np.repeat(wanted, sizes)]).astype(np.int64)


def _listed(source: Source, path: str, setting: str) -> npt.NDArray[np.int64]:
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise ValueError(
            f"{setting}={path} cannot be read ({error.strerror}); give a list file or a share such as 0.1"
        ) from error
    if "\0" in text:
        raise ValueError(f"{setting}={path} is not a text; give a list file (one name or index a line) or a share")
    lines = [line.strip() for line in text.splitlines()]
    entries = [line for line in lines if line and not line.startswith("#")]
    if not entries:
        raise ValueError(f"{setting}={path} lists no image; write one name or index a line")
    find = _Finder(source)
    found = [find(entry) for entry in entries]
    _refuse(setting, path, "name no image of the set", [e for e, i in zip(entries, found, strict=True) if i is None])
    indices = np.array(found, dtype=np.int64)
    repeated = {index for index, count in Counter(indices.tolist()).items() if count > 1}
    extra = [e for e, i in zip(entries, indices.tolist(), strict=True) if i in repeated]
    _refuse(setting, path, "name an image that another line names too", extra)
    return np.sort(indices)


def _refuse(setting: str, path: str, what: str, entries: list[str]) -> None:
    if entries:
        first = ", ".join(printable(entry if len(entry) <= 80 else f"{entry[:77]}...") for entry in entries[:3])
        raise ValueError(
            f"{setting}={path}: {len(entries)} lines {what} (first: {first}); correct the list or data.train"
        )


class _Finder:
    """Finds the image that a line of a list means; the tables are built when first needed."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._names: dict[str, int] = {}
        self._last_parts: dict[str, int | None] = {}

    def __call__(self, entry: str) -> int | None:
        fields = entry.split(",")
        if len(fields) == 4 and fields[0].isdecimal():
            index, _, wnid, filename = (field.strip() for field in fields)
            by_name = self._by_name(f"{wnid}/{filename}")
            return by_name if by_name is not None else self._by_index(index, class_name=wnid)
        if entry.isdecimal():
            return self._by_index(entry)
        by_name = self._by_name(entry)
        return by_name if by_name is not None else self._by_last_part(entry)

    def _by_index(self, text: str, class_name: str | None = None) -> int | None:
        index = int(text)
        if index >= len(self._source):
            return None
        # An image of another class at this index shows that the list is for another set.
        if class_name is not None and class_name not in self._source.name(index).split("/")[:-1]:
            return None
        return index

    def _by_name(self, name: str) -> int | None:
        if not self._names:
            self._names = {self._source.name(index): index for index in range(len(self._source))}
        return self._names.get(name)

    def _by_last_part(self, name: str) -> int | None:
        if not self._last_parts:
            for index in range(len(self._source)):
                last = self._source.name(index).rpartition("/")[2]
                self._last_parts[last] = None if last in self._last_parts else index
        return self._last_parts.get(name)
