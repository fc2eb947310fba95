"""Sources made of other sources."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from sslight.data.sources.source import UNLABELED, Labeling, Source, joined_labels, part_at


class ConcatSource:
    """Several sources, one after the other; names get the part's prefix and ``/`` in front.

    When all parts have labels, the classes are the sorted union of their class names and labels are
    matched by name; otherwise there are none.
    """

    def __init__(self, sources: Sequence[Source], prefixes: Sequence[str]) -> None:
        assert len(sources) == len(prefixes) == len(set(prefixes)) > 0
        self.parts = tuple(sources)
        self._prefixes = tuple(prefixes)
        self.ends = np.cumsum([len(source) for source in sources])
        parts = [(s.classes, s.labels) for s in sources if s.classes is not None and s.labels is not None]
        self.classes, self.labels = joined_labels(parts) if len(parts) == len(sources) else UNLABELED

    def __len__(self) -> int:
        return int(self.ends[-1])

    def read(self, index: int) -> bytes:
        part, within = part_at(self.ends, index)
        return self.parts[part].read(within)

    def name(self, index: int) -> str:
        part, within = part_at(self.ends, index)
        return f"{self._prefixes[part]}/{self.parts[part].name(within)}"

    def locate(self, index: int) -> str:
        part, within = part_at(self.ends, index)
        return self.parts[part].locate(within)


class SubsetSource:
    """The images of ``source`` at ``indices`` (int64 ``[M]``), in that order, with all its classes or with others.

    ``labeled`` are classes and the labels of these images (int64 ``[M]``) instead of the source's; ``unmatched`` are
    the names in the table which chose them that no image has.
    """

    def __init__(
        self,
        source: Source,
        indices: npt.NDArray[np.int64],
        labeled: Labeling | None = None,
        *,
        unmatched: Sequence[str] = (),
    ) -> None:
        assert indices.ndim == 1
        assert np.all((indices >= 0) & (indices < len(source)))
        self.whole = source
        self.indices = indices
        self.unmatched = unmatched
        own = source.classes, None if source.labels is None else source.labels[indices]
        self.classes, self.labels = own if labeled is None else labeled

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> bytes:
        return self.whole.read(int(self.indices[index]))

    def name(self, index: int) -> str:
        return self.whole.name(int(self.indices[index]))

    def locate(self, index: int) -> str:
        return self.whole.locate(int(self.indices[index]))


def leaves(source: Source) -> Iterator[Source]:
    """The sources that a source is made of, in its order: of a plain one, itself."""
    match source:
        case SubsetSource():
            yield from leaves(source.whole)
        case ConcatSource():
            for part in source.parts:
                yield from leaves(part)
        case _:
            yield source
