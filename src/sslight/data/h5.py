"""Images in an H5 file with the layout of the original implementation."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from sslight.data.names import NameTable, printable
from sslight.data.tables import CachedFile, Table
from sslight.data.unreadable import UnreadableImage

MAX_ENCODED_BYTES = 2**30

SMALLEST_CACHED = 1000
"""Images from which on the listing of a file is kept between runs."""


class H5Source:
    """One group for each class, and in it one dataset of encoded bytes for each image.

    A dataset is a row of uint8 or a scalar of opaque bytes. Indices follow the sorted class names,
    then the sorted image names, whatever the order of creation; labels are positions in the sorted
    class names. Each process opens the file when it first reads. Nothing outside the file is read:
    links are refused when the file is listed, external and virtual datasets when they are met.
    Raises ValueError for another layout, OSError if the file cannot be opened.
    """

    def __init__(self, path: str | Path, *, labelled: bool) -> None:
        self._path = os.fspath(path)
        counts, self._names = _listing(self._path)
        assert len(self._names) == sum(counts.values())
        self.classes: tuple[str, ...] | None = None
        self.labels: npt.NDArray[np.int64] | None = None
        if labelled:
            self.classes = tuple(counts)
            self.labels = np.repeat(np.arange(len(counts), dtype=np.int64), list(counts.values()))
        self._file: h5py.File | None = None
        self._opened_by = -1

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> bytes:
        """The dataset's bytes. Raises OSError or UnreadableImage."""
        try:
            return _read_bytes(self._open(), self._names[index])
        except (KeyError, RuntimeError) as error:
            raise UnreadableImage(f"the H5 dataset cannot be read: {' '.join(str(error).split())}") from error

    def name(self, index: int) -> str:
        """``group/dataset``."""
        return self._names[index]

    def locate(self, index: int) -> str:
        """``file:group/dataset``."""
        return printable(f"{self._path}:{self._names[index]}")

    def _open(self) -> h5py.File:
        # A handle that a fork inherited belongs to the parent; each process opens its own.
        if self._file is None or self._opened_by != os.getpid():
            self._file, self._opened_by = h5py.File(self._path, "r"), os.getpid()
        return self._file


def _listing(path: str) -> tuple[dict[str, int], NameTable]:
    """Images in each class, and all names; of a large file kept between runs while the file is unchanged."""
    cache = CachedFile("h5", Path(path))
    known = cache.read()
    if known is not None:
        with suppress(KeyError, ValueError):
            return known.head["classes"], NameTable.from_arrays(known.arrays)
    with h5py.File(path, "r") as file:
        counts = _class_sizes(file, path)
        names = NameTable(_dataset_names(file, list(counts)))
    if len(names) >= SMALLEST_CACHED:
        cache.keep(Table({"classes": counts}, names.arrays()))
    return counts, names


def _class_sizes(file: h5py.File, path: str) -> dict[str, int]:
    """Images in each class that has any, by sorted class name; checks the layout of the whole file."""
    sizes: dict[str, int] = {}
    problems: list[str] = []

    def look(name: bytes, info: h5py.h5l.LinkInfo) -> bool:
        parts = _text(name).split("/")
        if info.type != h5py.h5l.TYPE_HARD:
            problems.append(f"{'/'.join(parts)} is a link, and links are not followed; store the image itself")
        elif len(parts) == 1:
            sizes[parts[0]] = 0
        elif len(parts) == 2:
            sizes[parts[0]] += 1
        else:
            problems.append(f"{'/'.join(parts)} lies deeper than group/image; store one group for each class")
        return bool(problems)

    file.id.links.visit(look, info=True)
    if problems:
        raise ValueError(f"{path}: {problems[0]}")
    for name, size in sizes.items():
        if not size and h5py.h5o.get_info(file.id, encoded_name(name)).type != h5py.h5o.TYPE_GROUP:
            raise ValueError(f"{path}: {name} lies outside any group; store one group of images for each class")
    filled = {name: sizes[name] for name in sorted(sizes) if sizes[name]}
    if not filled:
        raise ValueError(f"{path} holds no images; it needs one group for each class with one dataset an image")
    return filled


def _dataset_names(file: h5py.File, classes: list[str]) -> Iterator[str]:
    for name in classes:
        images = h5py.Group(h5py.h5g.open(file.id, encoded_name(name))).keys()
        # h5py gives names that are not UTF-8 as bytes.
        for image in sorted(_text(image) for image in images):
            yield f"{name}/{image}"


def encoded_name(name: str) -> bytes:
    """The name as it stands in the file."""
    return name.encode("utf-8", "surrogateescape")


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")


def _read_bytes(file: h5py.File, name: str) -> bytes:
    dataset = h5py.h5d.open(file.id, encoded_name(name))
    offset = dataset.get_offset()
    kind = dataset.get_type()
    is_row = kind.get_class() == h5py.h5t.INTEGER and kind.get_size() == 1 and dataset.rank == 1
    if offset is None or not is_row:
        return _read_through_hdf5(h5py.Dataset(dataset))
    # The bytes lie in one piece: without HDF5's machinery reading them takes a third of the time.
    num_bytes = dataset.get_storage_size()
    _refuse_too_large(num_bytes)
    encoded = os.pread(file.id.get_vfd_handle(), num_bytes, offset)
    if len(encoded) < num_bytes:
        raise UnreadableImage(f"the H5 file ends within the dataset of {num_bytes:,} bytes")
    return encoded


def _read_through_hdf5(dataset: h5py.Dataset) -> bytes:
    if dataset.id.get_offset() is None and (dataset.external or dataset.is_virtual):
        raise UnreadableImage("the H5 dataset keeps its bytes in another file")
    dtype, shape = dataset.dtype, dataset.shape
    is_opaque = dtype.kind in "VS" and shape == ()
    if not is_opaque and not (dtype.kind in "ui" and dtype.itemsize == 1 and len(shape) == 1):
        raise UnreadableImage(f"the H5 dataset ({dtype}, shape {shape}) is not encoded bytes")
    _refuse_too_large(dtype.itemsize if is_opaque else shape[0])
    encoded: bytes = dataset[...].tobytes()
    return encoded


def _refuse_too_large(num_bytes: int) -> None:
    if num_bytes > MAX_ENCODED_BYTES:
        raise UnreadableImage(f"the H5 dataset claims {num_bytes:,} bytes")
