"""Images in Parquet files of the layout that Hugging Face's datasets have: ``image: {bytes, path}`` and a label."""

import json
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sslight.data.decoding.limits import MAX_ENCODED_BYTES, UnreadableImage, one_line
from sslight.data.sources.names import printable
from sslight.data.sources.source import UNLABELED, joined_labels, part_at, refuse_missing_labels

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

LARGEST_GROUP = 2**24  # Bytes of images in a row group at most: to read one image is to read its whole group
LARGEST_PACKED_GROUP = 2**31  # The same where rows are read in their order, each group once
_OPEN_FILES = 16
_IMAGE_COLUMNS = ("image", "img")
_LARGEST_LABEL = 2**20
_LABEL_COLUMNS = ("label", "labels", "fine_label")


class ParquetSource:
    """The rows of several Parquet files, in the order of the files.

    The image is the column of ``{bytes, path}`` called image or img, or the only one; paths are never followed.
    The class is the column label, labels or fine_label: numbers, with the class names that the file's
    description of its features gives, or text. A process keeps the row group that it read last, so rows in
    their order cost little (measured: 0.3 ms); any other costs its row group (12.5 ms for one of 9 MB).

    Raises ValueError for files without such columns, damaged ones, missing labels if ``labeled``, and row groups
    of more than ``largest_group`` bytes; also if pyarrow is not there.
    """

    def __init__(self, files: Sequence[Path], *, labeled: bool, largest_group: int = LARGEST_GROUP) -> None:
        self._files = tuple(files)
        self._pid = -1
        self._starts: list[npt.NDArray[np.int64]] = []
        self._columns: list[str] = []
        labels: list[tuple[tuple[str, ...], npt.NDArray[np.int64]]] = []
        for path in self._files:
            file = _open(path)
            self._columns.append(_image_column(file.schema_arrow, path))
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            largest = max((group.total_byte_size for group in groups), default=0)
            if largest > largest_group:
                raise ValueError(
                    f"{path} has row groups of {largest / 1e6:,.0f} MB, and reading an image reads its whole group; "
                    f"pack it first: sslight data pack {quote(str(path))} output=OUT"
                )
            self._starts.append(np.cumsum([0, *(group.num_rows for group in groups)]))
            if labeled:
                labels.append(_labels(file, path))
        self._ends = np.cumsum([starts[-1] for starts in self._starts])
        if not len(self):
            raise ValueError(f"{self._files[0]} has no rows; give Parquet files with images")
        self.classes, self.labels = UNLABELED
        if labeled:
            self.classes, self.labels = joined_labels(labels)
            refuse_missing_labels(self, self.labels, "rows without a label")

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, index: int) -> bytes:
        part, row = part_at(self._ends, index)
        if self._pid != os.getpid():  # open files and threads do not cross a fork
            self._pid = os.getpid()
            self._file = lru_cache(_OPEN_FILES)(_open)
            self._group = lru_cache(1)(self._read_group)
        group = int(np.searchsorted(self._starts[part], row, side="right")) - 1
        try:
            value = self._group(part, group)[row - int(self._starts[part][group])]
        except _errors() as error:
            raise UnreadableImage(f"its row group cannot be read: {one_line(error)}") from error
        encoded = value.as_py()
        if encoded is None:
            raise UnreadableImage("the row has no bytes, at most a path, and paths are not followed")
        if len(encoded) > MAX_ENCODED_BYTES:
            raise UnreadableImage(f"the row has {len(encoded):,} bytes")
        return bytes(encoded)

    def name(self, index: int) -> str:
        part, row = part_at(self._ends, index)
        return f"{self._files[part].stem}/{row:08d}"

    def locate(self, index: int) -> str:
        part, row = part_at(self._ends, index)
        return printable(f"{self._files[part]}:{row}")

    def files(self) -> Iterator[Path]:
        """The files."""
        return iter(self._files)

    def _read_group(self, part: int, group: int) -> "pa.ChunkedArray":
        path = self._columns[part]
        table = self._file(self._files[part]).read_row_group(group, columns=[path], use_threads=False)
        return table.flatten().column(path)


def check_one_split(folder: Path, files: Sequence[Path]) -> None:
    """Raise ValueError if the files in a folder are of several splits, such as train and validation."""
    splits = sorted({path.stem.partition("-")[0] for path in files})
    if len(splits) > 1:
        raise ValueError(
            f"{folder} holds the Parquet files of {', '.join(splits)}; give one of them, with a pattern such as "
            f"{folder}/{splits[0]}-{{00000..00009}}-of-00010.parquet"
        )


def _open(path: Path) -> "pq.ParquetFile":
    try:
        from pyarrow import parquet
    except ImportError:
        raise ValueError(f"{path} is a Parquet file, and pyarrow is not installed: pip install pyarrow") from None
    try:
        return parquet.ParquetFile(path, pre_buffer=False)
    except _errors() as error:
        raise ValueError(f"{path} is not an intact Parquet file ({one_line(error)[:200]})") from None


def _errors() -> tuple[type[Exception], ...]:
    import pyarrow as pa

    # What it raises on damaged files besides its own: text that is no UTF-8, numbers out of range.
    return (pa.ArrowException, ValueError, OverflowError, OSError)


def _image_column(schema: "pa.Schema", path: Path) -> str:
    """Path of the column of bytes."""
    import pyarrow as pa

    def is_binary(kind: Any) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    found: dict[str, str] = {}
    for field in schema:
        if is_binary(field.type):
            found[field.name] = field.name
        elif pa.types.is_struct(field.type) and any(
            each.name == "bytes" and is_binary(each.type) for each in field.type
        ):
            found[field.name] = f"{field.name}.bytes"
    chosen = [name for name in _IMAGE_COLUMNS if name in found] or list(found)
    if len(chosen) != 1 and chosen[:1] != ["image"]:
        which = f"several: {', '.join(printable(name) for name in chosen)}" if chosen else "none"
        raise ValueError(f"{path} needs one column image of {{bytes, path}}, and has {which}; rename one to image")
    return found[chosen[0]]


def _labels(file: "pq.ParquetFile", path: Path) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """The class names in the order of the numbers, and labels, -1 for none."""
    import pyarrow as pa

    name = next((name for name in _LABEL_COLUMNS if name in file.schema_arrow.names), None)
    if name is None:
        raise ValueError(f"{path} has no column label, so it has no labels; add it, or turn off what needs labels")
    try:
        column = file.read([name], use_threads=False).column(name)
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            values = ["" if value is None else str(value) for value in column.to_pylist()]
            names = tuple(sorted({value for value in values if value}))
            position = {value: number for number, value in enumerate(names)} | {"": -1}
            return names, np.array([position[value] for value in values], dtype=np.int64)
        if not pa.types.is_integer(kind):
            raise ValueError(f"its column {name} is of type {kind}, neither whole numbers nor text")
        numbers = column.fill_null(-1).to_numpy().astype(np.int64)
    except _errors() as error:
        raise ValueError(f"{path} has no labels ({one_line(error)[:200]})") from None
    described = _class_names(file.schema_arrow.metadata or {}, name)
    if described is not None:
        names = described
    else:
        names = tuple(str(number) for number in range(int(min(numbers.max(initial=-1), _LARGEST_LABEL)) + 1))
    numbers = np.maximum(numbers, -1)
    if numbers.max(initial=-1) >= len(names):
        raise ValueError(f"{path} has the label {numbers.max()}, but only {len(names)} class names")
    return names, numbers


def _class_names(metadata: dict[bytes, bytes], column: str) -> tuple[str, ...] | None:
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) and len(set(map(str, names))) == len(names) else None
