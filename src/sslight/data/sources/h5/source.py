"""Images in an H5 file with the layout of the original implementation."""

import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from sslight.data.decoding.limits import MAX_ENCODED_BYTES, UnreadableImage, one_line
from sslight.data.sources.h5.index import encoded_name, load_h5_index, place_of, refuse_links
from sslight.data.sources.names import printable
from sslight.data.sources.source import UNLABELED


class H5Source:
    """One group for each class, and in it one dataset of encoded bytes for each image.

    A dataset is a row of uint8 or a scalar of opaque bytes. Indices follow the sorted class names, then the sorted
    image names. Each process opens the file when it first reads. Nothing outside the file is read: links are refused
    when the file is listed, external and virtual datasets when they are met. Raises ValueError for another layout,
    OSError if the file cannot be opened.
    """

    def __init__(self, path: str | Path, *, labeled: bool) -> None:
        self._path = os.fspath(path)
        index = load_h5_index(Path(path))
        self._names, self._places = index.names, index.places
        numbers = np.arange(len(index.classes), dtype=np.int64)
        labeling = tuple(index.classes), np.repeat(numbers, list(index.classes.values()))
        self.classes, self.labels = labeling if labeled else UNLABELED
        self._file: h5py.File | None = None
        self._opened_by = -1

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> bytes:
        name, file = self._names[index], self._open()
        try:
            offset, num_bytes = (-1, 0) if self._places is None else self._places[index].tolist()
            if offset < 0:
                refuse_links(file, name)
                offset, num_bytes = place_of(file, name) or (-1, 0)
            if offset >= 0:
                return _read_piece(file, offset, num_bytes)
            return _read_through_hdf5(h5py.Dataset(h5py.h5d.open(file.id, encoded_name(name))))
        except UnreadableImage:
            raise
        except (KeyError, RuntimeError, ValueError, TypeError) as error:  # h5py raises all of them on damaged files
            raise UnreadableImage(f"the H5 dataset cannot be read: {one_line(error)}") from error

    def name(self, index: int) -> str:
        return self._names[index]

    def locate(self, index: int) -> str:
        return printable(f"{self._path}:{self._names[index]}")

    def files(self) -> Iterator[str]:
        """The one file."""
        return iter([self._path])

    def _open(self) -> h5py.File:
        # A handle that a fork inherited belongs to the parent; each process opens its own.
        if self._file is None or self._opened_by != os.getpid():
            self._file, self._opened_by = h5py.File(self._path, "r"), os.getpid()
        return self._file


def _read_piece(file: h5py.File, offset: int, num_bytes: int) -> bytes:
    """Bytes that lie in one piece: without HDF5's machinery this takes a third of the time or less."""
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
