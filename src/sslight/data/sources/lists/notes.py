"""What a reader must know of images that were left out, and of rows of a table that are about none."""

from collections.abc import Iterable, Sequence

from sslight.data.sources.combine import SubsetSource
from sslight.data.sources.names import printable
from sslight.data.sources.source import Source


def unmatched_notes(tables: Iterable[tuple[str, str | None, Source]]) -> list[str]:
    """A sentence for each table with names that no image has; each with the setting and the images that it is for.

    What is of no image in one set may be of one in another that has the same table.
    """
    parts: dict[str, list[tuple[str, Source]]] = {}
    for setting, table, source in tables:
        if table is not None:
            parts.setdefault(table, []).append((setting, source))
    notes = []
    for table, sets in parts.items():
        (lost, num_names), *others = [_unmatched(source) for _, source in sets]
        nowhere = set(lost).intersection(*(names for names, _ in others))
        if nowhere:
            first = printable(next(name for name in lost if name in nowhere)) or "an empty name"
            have = "has" if len(nowhere) == 1 else "have"
            notes.append(
                f"{len(nowhere):,} of {num_names:,} labeled names in {table} {have} no image in "
                f"{' and '.join(setting for setting, _ in sets)} (first: {first}; a name there is "
                f"{printable(sets[0][1].name(0))})."
            )
    return notes


def _unmatched(source: Source) -> tuple[Sequence[str], int]:
    """The names in the table of a set that no image has, and the number of all of them; none without a table."""
    while isinstance(source, SubsetSource):
        if source.unmatched:
            return source.unmatched, len(source.unmatched) + len(source)
        source = source.whole
    return [], 0


def left_out_notes(number: int, total: int, what: str) -> list[str]:
    """A sentence if some of the images of ``what`` are unreadable."""
    return [f"{number:,} of the {total:,} images of {what} left out as unreadable."] if number else []
