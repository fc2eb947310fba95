"""What a source of images is."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt


class Source(Protocol):
    """Encoded images by index, the same ones in the same order whenever it is built again.

    ``classes`` are the sorted class names and ``labels`` int64 ``[N]`` positions in them; both are
    None for a source that was built without labels.
    """

    @property
    def classes(self) -> tuple[str, ...] | None: ...

    @property
    def labels(self) -> npt.NDArray[np.int64] | None: ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """The encoded image. Raises OSError or UnreadableImage if it cannot be read."""
        ...

    def name(self, index: int) -> str:
        """Path of the image relative to its root, or ``group/dataset`` in an H5 file."""
        ...

    def locate(self, index: int) -> str:
        """Where the image lies, in full and printable, for messages."""
        ...


def joined_labels(
    parts: Sequence[tuple[Sequence[str], npt.NDArray[np.integer]]],
) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Sorted classes and labels of several sets, each with its own classes and labels in them (-1: none)."""
    joined = tuple(sorted({name for classes, _ in parts for name in classes}))
    position = {name: number for number, name in enumerate(joined)}
    tables = [np.array([*map(position.__getitem__, classes), -1], dtype=np.int64) for classes, _ in parts]
    return joined, np.concatenate([table[labels] for table, (_, labels) in zip(tables, parts, strict=True)])


def folder_labels(names: Iterable[str], separator: str) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """The first folders of sorted names, thereby sorted too, and labels; -1 for names without a folder."""
    found: dict[str, int] = {}
    parts = (name.partition(separator) for name in names)
    labels = [found.setdefault(first, len(found)) if mark else -1 for first, mark, _ in parts]
    return tuple(found), np.array(labels, dtype=np.int64)


def labels_in(source: Source, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """The labels of ``source`` as positions in another set's ``classes``, matched by class name.

    int64 ``[N]``. Raises ValueError if the source is unlabelled or has a class that is not there.
    """
    if source.labels is None or source.classes is None:
        raise ValueError("these images were read without labels; build the source with labelled=True")
    missing = [name for name in source.classes if name not in set(classes)]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(source.classes)} classes are not among the {len(classes)} training classes "
            f"(first: {', '.join(missing[:3])}); use sets with the same class names"
        )
    position = {name: index for index, name in enumerate(classes)}
    table = np.array([position[name] for name in source.classes], dtype=np.int64)
    return table[source.labels]
