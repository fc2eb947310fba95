"""Packing into one H5 file of the original implementation's layout."""

import time
from collections.abc import Generator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from sslight.data.packing.journal import JournaledFile
from sslight.data.packing.parallel import map_in_order
from sslight.data.packing.reencode import Stored
from sslight.data.packing.tally import Tally, prepare_images
from sslight.data.sources.bad_images import BadImage
from sslight.data.sources.h5_index import encoded_name
from sslight.data.sources.names import printable
from sslight.data.sources.source import Source

CHUNK = 32
"""Images that a worker prepares at a time."""

COMMIT_SECONDS = 15.0
"""Longest work that a kill costs."""

BYTES_AN_IMAGE = 400
"""What HDF5 adds for one dataset, in bytes (measured: 390)."""

LOOSE_GROUP = "images"
"""Group of images that lie in no folder and have no label."""


def write_h5(
    source: Source,
    path: Path,
    journal: Path,
    *,
    short_side: int | None,
    workers: int,
) -> Generator[Tally, None, None]:
    """Write or go on writing the file at ``path``; gives the tally so far, first that of earlier attempts.

    HDF5 cannot be written by several processes: workers read, check and re-encode, and this process
    writes. The content does not depend on their number or on interruptions. Raises OSError, and
    ValueError if two images would have the same place.
    """
    with closing(JournaledFile(path, journal)) as file:
        tally = Tally() if file.state is None else Tally.from_plain(file.state)
        target = h5py.File(file, "w" if file.state is None else "r+")
        indices = range(tally.num_images, len(source))
        chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
        prepared = map_in_order(partial(_prepare, source, short_side), chunks, workers=workers)
        try:
            yield tally
            with closing(prepared):
                last_commit = time.monotonic()
                for images in prepared:
                    for index, image in images:
                        _store(target, source, index, image)
                        tally.count(image)
                    if time.monotonic() - last_commit >= COMMIT_SECONDS:
                        target.flush()
                        file.commit(tally.as_plain())
                        last_commit = time.monotonic()
                    yield tally
            target.close()
            file.commit(tally.as_plain())
        except BaseException:
            file.abandon()
            with suppress(Exception):
                target.close()
            raise


def _prepare(source: Source, short_side: int | None, indices: range) -> list[tuple[int, Stored | BadImage]]:
    return prepare_images(source, indices, short_side)


def _store(file: h5py.File, source: Source, index: int, image: Stored | BadImage) -> None:
    if isinstance(image, BadImage):
        return
    group, name = _place(source, index, image.name)
    if not _holds(file, group):
        file.create_group(_name(group))
    folder = h5py.Group(h5py.h5g.open(file.id, encoded_name(group)))
    if _holds(folder, name):
        raise ValueError(
            f"{image.name} would be stored twice as {group}/{name}: the layout has only one level "
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
