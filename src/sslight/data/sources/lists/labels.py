"""Labels from a table beside the images."""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sslight.data.decoding.limits import one_line
from sslight.data.sources.combine import SubsetSource
from sslight.data.sources.lists.find import NameFinder
from sslight.data.sources.names import is_utf8, printable
from sslight.data.sources.source import Source
from sslight.data.sources.suffixes import is_image
from sslight.reading import near_name, read_ordinary

LARGEST_LIST = 2**32  # Bytes of a list or table of images at most
SEPARATORS = ";|,"  # of several labels in a cell
TABLE = "give a table with lines NAME,LABEL"
_LABEL = "label"  # the heading that needs no data.labels_column
_L = TypeVar("_L")
_TRUTHS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True, "no": False, "yes": True}


def labeled_by_table(
    source: Source,
    table: str,
    column: str | None,
    setting: str,
    *,
    only_labeled: bool | None = None,
    multi_label: bool | None = None,
) -> SubsetSource:
    """The images of ``source``, with the classes that a table of separated values gives them.

    Without ``column`` the labels are in the column headed ``label`` (in any case) or, if there are two, in the second,
    with or without a line of headings; with it the first line holds the headings. The names are in the first column
    whose value names an image. Commas, semicolons and tabs separate. A name is that of a list (``NameFinder``), also
    without its suffix. Rows without a label are passed over, and those about other images, which ``unmatched`` holds.
    With ``only_labeled`` images that get no label are left out; None says that this is not offered. With
    ``multi_label=False`` a label that looks like a list of several is the name of a class.

    Raises ValueError, naming ``setting``, if the table cannot be read, has no such column, has labels that look like
    lists, labels an image in different ways, or leaves one (with ``only_labeled``: all) without a label.
    """
    prefix = table_prefix(table, setting)
    find = NameFinder(source, by_index=False, by_stem=True)
    pairs = [(name, label) for name, label in label_pairs(prefix, table, column, find) if label]
    lists = [label for _, label in pairs if looks_like_several(label)]
    if lists and multi_label is not False:
        raise ValueError(
            f"{prefix}: {len(lists)} of {len(pairs)} labels look like several (first: {printable(lists[0])}); set "
            "data.multi_label=true to fine-tune with several labels an image, or data.multi_label=false if each is the "
            "name of one class"
        )
    words, unmatched = match_rows(prefix, pairs, find)
    rows = labeled_positions(prefix, source, setting, words, unmatched, only_labeled=only_labeled)
    classes = tuple(sorted(set(words.values())))  # an array of texts would be as wide as the longest
    position = {name: number for number, name in enumerate(classes)}
    labels = np.array([position[words[index]] for index in rows.tolist()], dtype=np.int64)
    return SubsetSource(source, rows, (classes, labels), unmatched=unmatched)


def looks_like_several(label: str) -> bool:
    """Whether a cell of labels may be a list: it begins with a bracket or has one of ``SEPARATORS`` in it."""
    return label.startswith("[") or any(mark in label for mark in SEPARATORS)


def labeled_rows(source: Source, table: str, setting: str) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Sorted indices of the images that a table, as for :func:`labeled_by_table`, gives a label; a list names them all.

    And the names with a label that no image has. Raises ValueError, naming ``setting``, if the table cannot be read or
    gives none of the images a label.
    """
    prefix = f"{setting}={table}"
    find = NameFinder(source, by_index=False, by_stem=True)
    rows = read_rows(prefix, table, TABLE)
    names = [row[0] for row in rows]
    if len(rows[0]) > 1:
        names = [name for name, label in label_pairs(prefix, table, None, find) if label]
    elif _is_heading(names[0], find):
        names = names[1:]
    check_text(prefix, [names], find)
    found = {name: index for name in names if (index := find(name)) is not None}
    if not found:
        raise ValueError(f"{prefix} gives a label to none of the {len(source)} images; {TABLE}.")
    return np.array(sorted({*found.values()}), dtype=np.int64), [name for name in names if name not in found]


def table_prefix(table: str, setting: str) -> str:
    """How errors about the table of the set ``setting`` begin."""
    return f"{'data.val_labels' if setting == 'data.val' else 'data.labels'}={table}"


def read_list(prefix: str, path: str, remedy: str) -> str:
    """The text of a list of images, without a byte-order mark. Raises ValueError that begins with ``prefix``.

    Bytes that are not UTF-8 are kept through ``surrogateescape``: names of files may have them.
    """
    try:
        content = read_ordinary(Path(path).expanduser(), largest=LARGEST_LIST)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{prefix} cannot be read ({one_line(error)}); {remedy}{near_name(path)}") from error
    is_wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16") if is_wide else content.decode("utf-8-sig", "surrogateescape")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ValueError(f"{prefix} is not a text file in UTF-8 or UTF-16; {remedy}")
    return text


def read_rows(prefix: str, table: str, remedy: str) -> list[list[str]]:
    """The rows of a table of separated values, all of one length, without empty ones.

    The separator is the commonest of the first line with which all rows have one length. Raises ValueError that
    begins with ``prefix``.
    """
    text = read_list(prefix, table, remedy)
    first_line = text.lstrip().split("\n", 1)[0]
    faults: list[str] = []
    for delimiter in sorted(",;\t", key=first_line.count, reverse=True):
        try:
            rows, wrong_line = _parsed(text, delimiter)
        except csv.Error as error:
            faults.append(f"is not a table of separated values ({error}); {remedy}")
            continue
        if not rows:
            raise ValueError(f"{prefix} is empty; {remedy}")
        if wrong_line is None and not (faults and len(rows[0]) == 1):
            return rows
        faults.append(f"has rows of different lengths (line {wrong_line}); quote names that contain the separator")
    raise ValueError(f"{prefix} {faults[0]}")


def _parsed(text: str, delimiter: str) -> tuple[list[list[str]], int | None]:
    """The rows with something in them, and the first line that is not as long as the others, if any."""
    rows: list[list[str]] = []
    wrong_line = None
    reader = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter, skipinitialspace=True)
    for row in reader:
        fields = [field.strip() for field in row]
        if any(fields):
            rows.append(fields)
            if len(fields) != len(rows[0]) and wrong_line is None:
                wrong_line = reader.line_num
    return rows, wrong_line


def check_text(prefix: str, rows: Sequence[Sequence[str]], find: NameFinder) -> None:
    """Raise ValueError if a field is not UTF-8, unless it is the name of an image as its folder has it."""
    for row in rows:
        for field in row:
            if not is_utf8(field) and find(field) is None:
                raise ValueError(f"{prefix} is not UTF-8 text ({printable(field)}); save it as UTF-8")


def label_columns(heading: Sequence[str]) -> list[str]:
    """The headings that say ``label``, in any case."""
    return [name for name in heading if name.lower() == _LABEL]


def truth(field: str) -> bool | None:
    """What 0, 1, true, false, yes or no says (in any case, also 0.0 and 1.0); None for anything else."""
    return _TRUTHS.get(field.lower())


def label_pairs(prefix: str, table: str, column: str | None, find: NameFinder) -> list[tuple[str, str]]:
    """Names and what is in the column of labels, row by row; parameters and errors as of :func:`labeled_by_table`."""
    rows = read_rows(prefix, table, TABLE)
    check_text(prefix, rows, find)
    heading, width = rows[0], len(rows[0])
    if column is None and width != 2 and len(marked := label_columns(heading)) == 1:
        (column,) = marked
    if column is None:
        if width > 2 and len(rows) == 1:
            raise ValueError(f"{prefix} has a single line, its headings: add rows about the images")
        if width != 2:
            raise ValueError(
                f"{prefix} has {width} columns; set data.labels_column to the column of labels: "
                f"{', '.join(heading)}{_nearly_tags(rows)}"
            )
        names, labels = 0, 1
        rows = rows[1:] if _is_heading(heading[0], find) else rows
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


def _is_heading(name: str, find: NameFinder) -> bool:
    """Whether the first name stands above the names: it is no image, and does not look like one either."""
    return find(name) is None and not is_image(name)


def _nearly_tags(rows: Sequence[Sequence[str]]) -> str:
    """What keeps a table with columns of 0 and 1 from being one of several labels an image; empty if it has none."""
    heading, *rest = rows
    columns = range(1, len(heading))
    odd = {place: next((row for row in rest if truth(row[place]) is None), None) for place in columns}
    wrong = next((place for place in columns if odd[place] is not None), None)
    if wrong is None or all(odd.values()):
        return ""
    row = odd[wrong]
    assert row is not None
    return (
        f"; or, for several labels an image, give 0 and 1 in all columns after the names "
        f"({heading[wrong]} has {row[wrong] or 'nothing'} for {printable(row[0])})"
    )


def match_rows(prefix: str, pairs: Sequence[tuple[str, _L]], find: NameFinder) -> tuple[dict[int, _L], list[str]]:
    """What rows of names and labels say of each image, and the names that no image has.

    A row that repeats another counts once. ValueError if rows about an image differ.
    """
    found: dict[int, _L] = {}
    unmatched = []
    for name, label in pairs:
        index = find(name)
        if index is None:
            unmatched.append(name)
        elif found.setdefault(index, label) != label:
            raise ValueError(f"{prefix} labels {printable(name)} {_said(found[index])} and {_said(label)}; keep one")
    return found, unmatched


def _said(label: object) -> str:
    return (";".join(sorted(label)) or "[]") if isinstance(label, frozenset) else str(label)


def labeled_positions(
    prefix: str,
    source: Source,
    setting: str,
    labels: Mapping[int, object],
    unmatched: Collection[str],
    *,
    only_labeled: bool | None,
) -> npt.NDArray[np.int64]:
    """The sorted keys of ``labels``; ValueError if there is none or, unless ``only_labeled``, an image without one."""
    correct = f"a name is that in the folder, such as {printable(source.name(0))}"
    first = printable(next(iter(unmatched), "")) or "an empty name"
    if not labels and unmatched:
        raise ValueError(
            f"{prefix} has {len(unmatched)} rows with a label, all of no image of {setting} (first: {first}): {correct}"
        )
    if not labels:
        raise ValueError(
            f"{prefix} labels none of the images of {setting} yet: add rows about them, or fill in its column of labels"
        )
    missing = [index for index in range(len(source)) if index not in labels]
    if missing and not only_labeled:
        remedy = "" if only_labeled is None else ", or use only those that have one: data.subset=labeled"
        others = (
            f", and {len(unmatched)} of its rows name none of them (first: {first}; {correct})" if unmatched else ""
        )
        raise ValueError(
            f"{prefix} has no label for {len(missing)} of the {len(source)} images of {setting} (first: "
            f"{printable(source.name(missing[0]))}){others}; add rows about them, or leave these images out of "
            f"{setting}{remedy}"
        )
    return np.array(sorted(labels), dtype=np.int64)
