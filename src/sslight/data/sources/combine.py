"""Sources made of other sources."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sslight.data.sources.source import Source, joined_labels


class ConcatSource:
    """Several sources, one after the other; names get the part's prefix and ``/`` in front.

    When all parts have labels, the classes are the sorted union of their class names and labels are
    matched by name; otherwise there are none.
    """

    def __init__(self, sources: Sequence[Source], prefixes: Sequence[str]) -> None:
        assert len(sources) == len(prefixes) == len(set(prefixes)) > 0
        self.parts = tuple(sources)
        self._prefixes = tuple(prefixes)
        self._ends = np.cumsum([len(source) for source in sources])
        self.classes: tuple[str, ...] | None = None
        self.labels: npt.NDArray[np.int64] | None = None
        parts = [(s.classes, s.labels) for s in sources if s.classes is not None and s.labels is not None]
        if len(parts) == len(sources):
            self.classes, self.labels = joined_labels(parts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, index: int) -> bytes:
        """The encoded image, from the part that holds it."""
        part, within = self._part(index)
        return self.parts[part].read(within)

    def name(self, index: int) -> str:
        """Prefix of the part, ``/`` and the name there."""
        part, within = self._part(index)
        return f"{self._prefixes[part]}/{self.parts[part].name(within)}"

    def locate(self, index: int) -> str:
        """Where the image lies, as its part says it."""
        part, within = self._part(index)
        return self.parts[part].locate(within)

    def _part(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self._ends, index, side="right"))
        return part, index - (int(self._ends[part - 1]) if part else 0)


class SubsetSource:
    """The images of ``source`` at ``indices`` (int64 ``[M]``), in that order, with all its classes."""

    def __init__(self, source: Source, indices: npt.NDArray[np.int64]) -> None:
        assert indices.ndim == 1
        assert np.all((indices >= 0) & (indices < len(source)))
        self.whole = source
        self._indices = indices
        self.classes = source.classes
        self.labels: npt.NDArray[np.int64] | None = None if source.labels is None else source.labels[indices]

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> bytes:
        """The encoded image."""
        return self.whole.read(int(self._indices[index]))

    def name(self, index: int) -> str:
        """The name in the whole source."""
        return self.whole.name(int(self._indices[index]))

    def locate(self, index: int) -> str:
        """Where the image lies in the whole source."""
        return self.whole.locate(int(self._indices[index]))
