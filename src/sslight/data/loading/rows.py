"""What the loaders share: random streams by key, and an image or those drawn in its place."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from torch import Tensor

from sslight.data.decoding.decode import decode
from sslight.data.decoding.limits import UnreadableImage
from sslight.data.loading.shared_batches import Indices, RowResult, SharedBatch
from sslight.data.sources.bad_images import BadImage, BadImageLog, bad_image
from sslight.data.sources.source import Source

MAX_REPLACEMENTS = 100
"""Images tried in place of an unreadable one before giving up."""

# What a stream keyed by (seed, epoch, ...) is for; the views' own are keyed by (seed, epoch, index) alone.
VIEW_ORDER, VIEW_REPLACEMENT, CROP_ORDER, DETECTION_ORDER, DETECTION_CHANGES, DETECTION_REPLACEMENT = range(1, 7)


def keyed_stream(seed: int, epoch: int, purpose: int, *key: int) -> np.random.Generator:
    """The random numbers of one purpose in an epoch, such as its order."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch, *key), spawn_key=(purpose,))))


def with_replacements(index: int, num_images: int, stream: np.random.Generator) -> Iterator[int]:
    """An image, and then those to try in its place."""
    yield index
    for _ in range(MAX_REPLACEMENTS):
        yield int(stream.integers(num_images))


def pixel_reader(source: Source, max_pixels: int) -> Callable[[int], Tensor]:
    """Reads and decodes an image of the source."""
    return lambda index: decode(source.read(index), max_pixels=max_pixels)


def first_readable(
    source: Source, candidates: Iterable[int], read: Callable[[int], Tensor]
) -> tuple[Tensor | None, RowResult]:
    """Pixels of the first image that ``read`` gives, and which it is; the unreadable ones before it are noted."""
    bad: list[BadImage] = []
    for index in candidates:
        try:
            return read(index), RowResult(index, tuple(bad))
        except (UnreadableImage, OSError) as error:
            bad.append(bad_image(source, index, error))
    return None, RowResult(None, tuple(bad))


def replaced_indices(batch: SharedBatch, log: BadImageLog) -> Indices:
    """The images that fill all rows of a batch. Raises ValueError if a row has none, or too many are unreadable."""
    if len(batch.indices) < len(batch.rows):
        log.refuse_all(batch.bad)
    log.add(len(batch.rows), batch.bad)
    return batch.indices
