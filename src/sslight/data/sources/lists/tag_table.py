"""Several labels an image, from a table with a column of 0 and 1 for each."""

import numpy as np
import numpy.typing as npt

from sslight.data.sources.lists.find import NameFinder
from sslight.data.sources.lists.labels import label_columns, read_rows
from sslight.data.sources.names import printable
from sslight.data.sources.source import Source


def is_tag_table(table: str, setting: str) -> bool:
    """Whether a table has a heading and, after the names, two or more columns that hold 0 and 1 only.

    One headed ``label`` holds the classes, whatever the others are.
    """
    heading, *rows = _rows(table, setting)
    tags = len(heading) > 2 and bool(rows) and not label_columns(heading)
    return tags and all(value in ("0", "1") for row in rows for value in row[1:])


def read_tags(source: Source, table: str, setting: str) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """The headings of the columns, and 0 or 1 for each image of ``source``, ``[N, C]``.

    Names are in the first column, written as in lists (``NameFinder``); rows about other images are passed over.
    ``setting`` is that of the table, for errors. Raises ValueError if it is no such table (``is_tag_table``), labels
    an image twice, or leaves one out.
    """
    prefix = f"{setting}={table}"
    if not is_tag_table(table, setting):
        raise ValueError(
            f"{prefix} must have a header line, names, and two or more columns of 0 and 1, none of them headed label: "
            "correct the table."
        )
    heading, *rows = _rows(table, setting)
    if len({*heading[1:]}) < len(heading) - 1 or {*heading[1:]} <= {"0", "1"}:
        raise ValueError(f"{prefix} must start with a header line of different headings: correct the table.")
    find = NameFinder(source, by_index=False, by_stem=True)
    tags = np.full((len(source), len(heading) - 1), -1, dtype=np.int64)
    for name, *values in rows:
        if (index := find(name)) is None:
            continue
        if tags[index, 0] >= 0:
            raise ValueError(f"{prefix} has two rows about {printable(name)}: keep one.")
        tags[index] = np.array(values, dtype=np.int64)
    missing = np.flatnonzero(tags[:, 0] < 0)
    if len(missing):
        raise ValueError(
            f"{prefix} has no row about {len(missing)} of the {len(source)} images (first: "
            f"{printable(source.name(int(missing[0])))}): add them, or leave these images out."
        )
    return tuple(heading[1:]), tags


def _rows(table: str, setting: str) -> list[list[str]]:
    return read_rows(f"{setting}={table}", table, "give a table with a header line and a column per label")
