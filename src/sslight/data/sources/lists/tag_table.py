"""Several labels an image, from a table with a column of 0 and 1 for each, or with lists in one column."""

import ast
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sslight.data.sources.combine import SubsetSource
from sslight.data.sources.lists.find import NameFinder
from sslight.data.sources.lists.labels import (
    SEPARATORS,
    check_text,
    label_columns,
    label_pairs,
    labeled_positions,
    match_rows,
    read_rows,
    table_prefix,
    truth,
)
from sslight.data.sources.names import is_utf8, printable
from sslight.data.sources.source import UNLABELED, Source


@dataclass(frozen=True)
class TaggedImages:
    """The M images of a set that a table is about, and which of C labels each has.

    Attributes:
        source: The images.
        classes: Names of the labels.
        tags: ``[M, C]`` int64 of 0 and 1.
        separator: What stands between the labels of a list; empty if nothing does; None for a table of columns.
    """

    source: SubsetSource
    classes: tuple[str, ...]
    tags: npt.NDArray[np.int64]
    separator: str | None


def is_tag_table(table: str, setting: str) -> bool:
    """Whether a table has a heading and, after the names, two or more columns that hold 0 and 1 only.

    True and false, yes and no count as such (``truth``). A column headed ``label`` holds the classes, whatever the
    others are. ``setting`` is that of the table, for errors.
    """
    heading, *rows = _rows(f"{setting}={table}", table)
    tags = len(heading) > 2 and bool(rows) and not label_columns(heading)
    return tags and all(truth(value) is not None for row in rows for value in row[1:])


def read_tags(
    source: Source,
    table: str,
    setting: str,
    *,
    column: str | None = None,
    only_labeled: bool | None = None,
    separator: str | None = None,
) -> TaggedImages:
    """The labels that a table, of columns (``is_tag_table``) or else of lists, gives the images of the set ``setting``.

    A list is in the column that ``labeled_by_table`` finds, with ``;``, ``|`` or ``,`` between its labels (the first of
    these that is in any of them, unless ``separator`` says it), or written as JSON and Python do; ``[]`` says that no
    label applies. Names are written as in lists (``NameFinder``), and rows about other images are passed over. With
    ``only_labeled`` images without a row or a list are left out. Raises ValueError if the table cannot be read, has no
    such lists, labels an image in different ways, or leaves one out.
    """
    prefix = table_prefix(table, setting)
    find = NameFinder(source, by_index=False, by_stem=True)
    if column is None and is_tag_table(table, prefix.partition("=")[0]):
        heading, *rows = _rows(prefix, table)
        check_text(prefix, [heading, *rows], find)
        classes = tuple(heading[1:])
        if len({*classes}) < len(classes) or all(truth(name) is not None for name in classes):
            raise ValueError(f"{prefix} must start with a header line of different headings: correct the table.")
        pairs = [(row[0], frozenset(n for n, v in zip(classes, row[1:], strict=True) if truth(v))) for row in rows]
    else:
        cells = [(name, cell) for name, cell in label_pairs(prefix, table, column, find) if cell]
        if separator is None:
            plain = [cell for _, cell in cells if not cell.startswith("[")]
            separator = next((mark for mark in SEPARATORS if any(mark in cell for cell in plain)), "")
            if not separator and len(plain) == len(cells):
                raise ValueError(
                    f"{prefix} has neither lists of labels, such as cat;wet, nor columns of 0 and 1 with none headed "
                    "label, as several labels an image need: correct the table"
                )
        pairs = [(name, _listed(prefix, name, cell, separator)) for name, cell in cells]
        classes = ()
    labels, unmatched = match_rows(prefix, pairs, find)
    positions = labeled_positions(prefix, source, setting, labels, unmatched, only_labeled=only_labeled)
    kind = None if classes else separator
    classes = classes or tuple(sorted(frozenset().union(*labels.values())))
    column_of = {name: number for number, name in enumerate(classes)}
    tags = np.zeros((len(positions), len(classes)), dtype=np.int64)
    for row, index in enumerate(positions.tolist()):
        tags[row, [column_of[name] for name in labels[index]]] = 1
    return TaggedImages(SubsetSource(source, positions, UNLABELED, unmatched=unmatched), classes, tags, kind)


def _listed(prefix: str, name: str, cell: str, separator: str) -> frozenset[str]:
    """The labels in a cell, each once."""
    if cell.startswith("["):
        parts = _as_written(cell)
        if parts is None or not all(map(is_utf8, parts)):
            raise ValueError(
                f"{prefix} has {printable(cell)} for {printable(name)}, which is no list; write it as "
                '["cat", "wet"], or as cat;wet'
            )
    else:
        parts = cell.split(separator) if separator else [cell]
    return frozenset(label for part in parts if (label := part.strip()))


def _as_written(cell: str) -> list[str] | None:
    """The elements of a list in the notation of JSON, or of Python, in which pandas writes lists."""
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and all(isinstance(part, str | int) for part in found):
            return list(map(str, found))
    return None


def _rows(prefix: str, table: str) -> list[list[str]]:
    return read_rows(prefix, table, "give a table with a header line and a column per label")
