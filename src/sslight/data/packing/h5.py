"""Packing into one H5 file of the original implementation's layout."""

import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sslight.data.packing.prepare import Prepared
from sslight.data.packing.reencode import Stored
from sslight.data.sources.bad_images import BadImage
from sslight.data.sources.h5.index import encoded_name
from sslight.data.sources.names import printable
from sslight.data.sources.source import Source

BYTES_AN_IMAGE = 400  # What HDF5 adds for one dataset, in bytes (measured: 390)
LOOSE_GROUP = "images"  # Group of images that lie in no folder and have no label


def write_h5(
    source: Source, path: Path, images: Iterable[Prepared], count: Callable[[Stored | BadImage], None]
) -> None:
    """Write the file at ``path``; ``count`` is told of each image that has been dealt with.

    Raises OSError, and ValueError if two images would have the same place.
    """
    with _FileOfHdf5(path, "w+") as written:
        with h5py.File(written, "w") as file:
            for index, image in images:
                if isinstance(image, Stored):
                    _store(file, source, index, image)
                written.raise_error()
                count(image)
        written.raise_error()
        os.fsync(written.fileno())


class _FileOfHdf5(io.FileIO):
    """Keeps the first error of writing, after which nothing more is written: HDF5 itself crashes on a full disk."""

    _error: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        count = len(left)
        try:
            while left and self._error is None:
                left = left[super().write(left) or 0 :]
        except OSError as error:
            self._error = error
        return count

    def truncate(self, size: int | None = None) -> int:
        if self._error is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self._error = error
        return size or 0

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error


def _store(file: h5py.File, source: Source, index: int, image: Stored) -> None:
    group, name = _place(source, index, image.name)
    if not _holds(file, group):
        file.create_group(_name(group))
    folder = h5py.Group(h5py.h5g.open(file.id, encoded_name(group)))
    if _holds(folder, name):
        raise ValueError(
            f"{image.name} would be stored twice as {group}/{name}: the layout only has one level "
            "of groups; use format=tar"
        )
    folder.create_dataset(_name(name), data=np.frombuffer(image.encoded, dtype=np.uint8))


def _holds(group: h5py.Group, name: str) -> bool:
    # h5py's own test fails for names that are not UTF-8.
    held: bool = group.id.links.exists(encoded_name(name))
    return held


def _name(name: str) -> str | bytes:
    """The name as h5py takes it: text is marked as UTF-8 in the file, anything else goes as bytes."""
    return name if name == printable(name) else encoded_name(name)


def _place(source: Source, index: int, name: str) -> tuple[str, str]:
    """Group and dataset: the class, or the first folder; deeper folders become part of the name."""
    if source.classes is not None and source.labels is not None:
        group = source.classes[source.labels[index]]
        rest = name.removeprefix(f"{group}/")
    else:
        group, slash, rest = name.partition("/")
        if not slash:
            group, rest = LOOSE_GROUP, name
    return group, rest.replace("/", "%2F")
