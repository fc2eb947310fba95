"""What a source of images is."""

from collections.abc import Sequence
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
