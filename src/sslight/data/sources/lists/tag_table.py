"""Several labels an image, from a table with a column of 0 and 1 for each, or with lists in one column."""

import ast
import io
import json
import re
import tokenize
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sslight.data.sources.combine import SubsetSource
from sslight.data.sources.lists.find import NameFinder
from sslight.data.sources.lists.labels import (
    SEPARATORS,
    TABLE,
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
    known: Collection[str] | None = None,
) -> TaggedImages:
    """The labels that a table, of columns (``is_tag_table``) or else of lists, gives the images of the set ``setting``.

    A list is in the column that ``labeled_by_table`` finds, with ``;``, ``|`` or ``,`` between its labels (the first of
    these that is in any of them), or written as JSON and Python do; ``[]`` says that no label applies, and ``nan`` is
    an empty cell, as pandas writes it. A cell that is one of the ``known`` labels is that one, whatever is in it; with
    these no cell need hold several. Names are written as in lists (``NameFinder``), and rows about other images are
    passed over. With ``only_labeled`` images without a row or a list are left out. Raises ValueError if the table
    cannot be read, has no such lists, labels an image in different ways, or leaves one out.
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
        whole = frozenset(known or ())
        found = label_pairs(prefix, table, column, find)
        cells = [(name, cell) for name, cell in found if cell and (cell.lower() != "nan" or cell in whole)]
        plain = [cell for _, cell in cells if cell not in whole and not _is_written(cell)]
        separator = next((mark for mark in SEPARATORS if any(mark in cell for cell in plain)), "")
        if known is None and cells and not separator and len(plain) == len(cells):
            raise ValueError(
                f"{prefix} has neither lists of labels, such as cat;wet, nor columns of 0 and 1 with none headed "
                "label, as several labels an image need: correct the table"
            )
        pairs = [
            (name, frozenset({cell}) if cell in whole else _listed(prefix, name, cell, separator))
            for name, cell in cells
        ]
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
    if _is_written(cell):
        parts = _as_written(cell)
        if parts is None or not all(map(is_utf8, parts)):
            raise ValueError(
                f"{prefix} has {printable(cell)} for {printable(name)}, which is no list with commas between "
                'its labels; write it as ["cat", "wet"], or as cat;wet'
            )
    else:
        parts = cell.split(separator) if separator else [cell]
    return frozenset(label for part in parts if (label := part.strip()))


def _is_written(cell: str) -> bool:
    """Whether a cell is, or means to be, a list, a tuple or a set as JSON or Python writes it."""
    if re.match(r"\[|[({]\s*[\"')}]|set\(\)$", cell):
        return True
    return cell.startswith(("(", "{")) and _as_written(cell) is not None


def _as_written(cell: str) -> list[str] | None:
    """The elements of a list in the notation of JSON, or of Python, in which pandas writes lists, tuples and sets.

    None for anything else, and for NumPy's notation: without commas, Python would join its labels to one.
    """
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list | tuple | set) and all(isinstance(part, str | int) for part in found):
            return None if read is ast.literal_eval and _joins_texts(cell) else list(map(str, found))
    return None


def _joins_texts(cell: str) -> bool:
    """Whether two texts of a Python expression stand side by side."""
    tokens = tokenize.generate_tokens(io.StringIO(cell).readline)
    kinds = [token.type for token in tokens if token.type != tokenize.NL]
    return any(pair == (tokenize.STRING, tokenize.STRING) for pair in pairwise(kinds))


def _rows(prefix: str, table: str) -> list[list[str]]:
    return read_rows(prefix, table, f"{TABLE}, or with a heading and a column of 0 and 1 for each label")
