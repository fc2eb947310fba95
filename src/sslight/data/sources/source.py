"""What a source of images is."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Labeling = tuple[tuple[str, ...] | None, npt.NDArray[np.int64] | None]
"""Sorted class names and labels int64 ``[N]``, positions in them; both None for a set without labels."""

UNLABELED: Labeling = (None, None)


class Source(Protocol):
    """Encoded images by index, the same ones in the same order whenever it is built again.

    ``classes`` and ``labels`` are a :data:`Labeling`.
    """

    @property
    def classes(self) -> tuple[str, ...] | None: ...

    @property
    def labels(self) -> npt.NDArray[np.int64] | None: ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """The encoded image. Raises OSError or UnreadableImage if it cannot be read, StoreUnavailable."""
        ...

    def name(self, index: int) -> str:
        """Path of the image relative to its root, or ``group/dataset`` in an H5 file."""
        ...

    def locate(self, index: int) -> str:
        """Where the image lies, in full and printable, for messages."""
        ...


def evenly_spread(total: int, number: int) -> npt.NDArray[np.int64]:
    """Rising positions of about ``number`` of ``total`` images, from the first to the last if two or more; or all."""
    return np.unique(np.linspace(0, total - 1, number).astype(np.int64))


def part_at(ends: npt.NDArray[np.int64], index: int) -> tuple[int, int]:
    """Which of several parts, of which each ends before ``ends``, holds an image, and where; IndexError if none."""
    if not 0 <= index < ends[-1]:
        raise IndexError(index)
    part = int(np.searchsorted(ends, index, side="right"))
    return part, index - (int(ends[part - 1]) if part else 0)


def joined_labels(
    parts: Sequence[tuple[Sequence[str], npt.NDArray[np.integer]]],
) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Sorted classes and labels of several sets, each with its own classes and labels in them (-1: none)."""
    joined = tuple(sorted({name for classes, _ in parts for name in classes}))
    position = {name: number for number, name in enumerate(joined)}
    tables = [np.array([*map(position.__getitem__, classes), -1], dtype=np.int64) for classes, _ in parts]
    return joined, np.concatenate([table[labels] for table, (_, labels) in zip(tables, parts, strict=True)])


def refuse_missing_labels(source: Source, labels: npt.NDArray[np.int64], what: str) -> None:
    """Raise ValueError if some labels are -1; ``what`` images are, and what follows."""
    missing = np.flatnonzero(labels < 0)
    if len(missing):
        raise ValueError(
            f"{source.locate(int(missing[0]))} is one of {len(missing)} of {len(labels)} {what}; "
            "add them, or turn off what needs labels"
        )


def folder_labels(names: Iterable[str], separator: str) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """The first folders of sorted names, thereby sorted too, and labels; -1 for names without a folder."""
    found: dict[str, int] = {}
    parts = (name.partition(separator) for name in names)
    numbers = (found.setdefault(first, len(found)) if mark else -1 for first, mark, _ in parts)
    labels = np.fromiter(numbers, dtype=np.int64)
    return tuple(found), labels


def labels_in(source: Source, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """The labels of ``source`` as positions in another set's ``classes``, matched by class name.

    int64 ``[N]``. Raises ValueError if the source is unlabeled or has a class that is not there.
    """
    if source.labels is None or source.classes is None:
        raise ValueError("these images were read without labels; build the source with labeled=True")
    position = {name: index for index, name in enumerate(classes)}
    missing = [name for name in source.classes if name not in position]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(source.classes)} classes are not among the {len(classes)} training classes "
            f"(first: {', '.join(missing[:3])}); use sets with the same class names"
        )
    return np.array([position[name] for name in source.classes], dtype=np.int64)[source.labels]
