"""Labels from a table beside the images."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sslight.data.decoding.limits import one_line
from sslight.data.sources.combine import SubsetSource
from sslight.data.sources.lists.find import NameFinder
from sslight.data.sources.names import printable
from sslight.data.sources.source import Source
from sslight.reading import near_name, read_ordinary

LARGEST_LIST = 2**32  # Bytes of a list or table of images at most
_LABEL = "label"  # the heading that needs no data.labels_column
_TABLE = "give a table with lines NAME,LABEL"


def labeled_by_table(
    source: Source, table: str, column: str | None, setting: str, *, only_labeled: bool | None = None
) -> SubsetSource:
    """The images of ``source``, with the classes that a table of separated values gives them.

    Without ``column`` the labels are in the column headed ``label`` (in any case) or, if there are two, in the second,
    with or without a line of headings; with it the first line holds the headings. The names are in the first column
    whose value names an image. Commas, semicolons and tabs separate. A name is that of a list (``NameFinder``), also
    without its suffix. Rows about other images and rows without a label are passed over. With ``only_labeled`` images
    that get no label are left out; None says that this is not offered. Raises ValueError, naming ``setting``, if the
    table cannot be read, has no such column, labels an image twice in different ways, or leaves one (with
    ``only_labeled``: all) without a label.
    """
    prefix = f"{'data.val_labels' if setting == 'data.val' else 'data.labels'}={table}"
    find = NameFinder(source, by_index=False, by_stem=True)
    words: dict[int, str] = {}
    for name, label in _pairs(prefix, table, column, find):
        index = find(name) if label else None
        if index is not None and words.setdefault(index, label) != label:
            raise ValueError(f"{prefix} labels {printable(name)} {words[index]} and {label}; keep one")
    missing = [index for index in range(len(source)) if index not in words]
    if only_labeled and not words:
        raise ValueError(f"{prefix} labels none of the images of {setting} yet: fill in its column of labels")
    if missing and not only_labeled:
        remedy = "" if only_labeled is None else ", or use only those that have one: data.subset=labeled"
        raise ValueError(
            f"{prefix} has no label for {len(missing)} of the {len(source)} images of {setting} (first: "
            f"{printable(source.name(missing[0]))}); add them as NAME,LABEL, or leave these images out of {setting}"
            f"{remedy}"
        )
    rows = np.array(sorted(words), dtype=np.int64)
    classes = tuple(sorted(set(words.values())))  # an array of texts would be as wide as the longest
    position = {name: number for number, name in enumerate(classes)}
    labels = np.array([position[words[index]] for index in rows.tolist()], dtype=np.int64)
    return SubsetSource(source, rows, (classes, labels))


def labeled_rows(source: Source, table: str, setting: str) -> npt.NDArray[np.int64]:
    """Sorted indices of the images that a table, as for :func:`labeled_by_table`, gives a label; a list names them all.

    Raises ValueError, naming ``setting``, if the table cannot be read or gives none of them a label.
    """
    prefix = f"{setting}={table}"
    find = NameFinder(source, by_index=False, by_stem=True)
    rows = read_rows(prefix, table, _TABLE)
    names = [row[0] for row in rows]
    if len(rows[0]) > 1:
        names = [name for name, label in _pairs(prefix, table, None, find) if label]
    found = {index for name in names if (index := find(name)) is not None}
    if not found:
        raise ValueError(f"{prefix} gives a label to none of the {len(source)} images; {_TABLE}.")
    return np.array(sorted(found), dtype=np.int64)


def read_list(prefix: str, path: str, remedy: str) -> str:
    """The text of a list of images, without a byte-order mark. Raises ValueError that begins with ``prefix``."""
    try:
        content = read_ordinary(Path(path).expanduser(), largest=LARGEST_LIST)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{prefix} cannot be read ({one_line(error)}); {remedy}{near_name(path)}") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    if "\0" in text:
        raise ValueError(f"{prefix} is not a text file; {remedy}")
    return text


def read_rows(prefix: str, table: str, remedy: str) -> list[list[str]]:
    """The rows of a table of separated values, all of one length. Raises ValueError that begins with ``prefix``."""
    text = read_list(prefix, table, remedy)
    first_line = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first_line.count)
    try:
        rows = [[field.strip() for field in row] for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    except csv.Error as error:
        raise ValueError(f"{prefix} is not a table of separated values ({error}); {remedy}") from error
    if not rows:
        raise ValueError(f"{prefix} is empty; {remedy}")
    wrong = next((number for number, row in enumerate(rows, 1) if len(row) != len(rows[0])), None)
    if wrong is not None:
        raise ValueError(
            f"{prefix} has rows of different lengths (row {wrong}); quote names that contain the separator"
        )
    return rows


def label_columns(heading: Sequence[str]) -> list[str]:
    """The headings that say ``label``, in any case."""
    return [name for name in heading if name.lower() == _LABEL]


def _pairs(prefix: str, table: str, column: str | None, find: NameFinder) -> list[tuple[str, str]]:
    rows = read_rows(prefix, table, _TABLE)
    heading, width = rows[0], len(rows[0])
    if column is None and width != 2 and len(marked := label_columns(heading)) == 1:
        (column,) = marked
    if column is None:
        if width != 2:
            raise ValueError(
                f"{prefix} has {width} columns; set data.labels_column to the column of labels: {', '.join(heading)}"
            )
        names, labels = 0, 1
        rows = rows if find(heading[0]) is not None else rows[1:]
    else:
        if heading.count(column) != 1:
            raise ValueError(
                f"data.labels_column={column} is not the heading of a single column of {table}: the headings are "
                f"{', '.join(heading)}"
            )
        labels, rows = heading.index(column), rows[1:]
        others = [place for place in range(width) if place != labels]
        names = next((place for row in rows[:1000] for place in others if find(row[place]) is not None), 0)
    return [(row[names], row[labels]) for row in rows]
