"""What the loaders share: random streams by key, and pools whose rows are images or those drawn in their place."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch import Tensor

from sslight.data.decoding.decode import decode
from sslight.data.decoding.limits import ReadLimits, UnreadableImage
from sslight.data.loading.shared_batches import Indices, Pixels, RowResult, SharedBatch, SharedBatchPool
from sslight.data.sources.bad_images import BadImage, BadImageLog, bad_image, no_readable_image
from sslight.data.sources.source import Source

MAX_REPLACEMENTS = 100  # Images tried in place of an unreadable one before giving up

# What a stream keyed by (seed, epoch, ...) is for; the views' own are keyed by (seed, epoch, index) alone.
VIEW_ORDER, VIEW_REPLACEMENT, CROP_ORDER, DETECTION_ORDER, DETECTION_CHANGES, DETECTION_REPLACEMENT = range(1, 7)
SHARD_ORDER, WINDOW_ORDER = 7, 8

WriteImage = Callable[[Tensor, Sequence[Pixels], int, int, int, int], None]
"""``write(image, arrays, row, epoch, wanted, index)``: image ``index``, perhaps in place of ``wanted``, into a row."""


def keyed_stream(seed: int, epoch: int, purpose: int, *key: int) -> np.random.Generator:
    """The random numbers of one purpose in an epoch, such as its order."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch, *key), spawn_key=(purpose,))))


def image_pool(
    source: Source,
    shapes: Sequence[tuple[int, ...]],
    write: WriteImage,
    *,
    batch_size: int,
    workers: int,
    limits: ReadLimits,
    read: Callable[[int], Tensor] | None = None,
    replaced_by: tuple[int, int] | None = None,
) -> SharedBatchPool:
    """A pool (see there) whose rows ``write`` fills with images that ``read`` gives, or that are decoded.

    With ``replaced_by``, a seed and a purpose, others are tried in place of an unreadable one.
    """

    def fill(arrays: Sequence[Pixels], row: int, epoch: int, wanted: int) -> RowResult:
        bad: list[BadImage] = []
        for index in _candidates(wanted, epoch, len(source), replaced_by):
            try:
                image = decode(source.read(index), max_pixels=limits.max_pixels) if read is None else read(index)
            except (UnreadableImage, OSError) as error:
                bad.append(bad_image(source, index, error))
            else:
                write(image, arrays, row, epoch, wanted, index)
                return RowResult(index, tuple(bad))
        return RowResult(None, tuple(bad))

    return SharedBatchPool(shapes, fill, source.locate, batch_size=batch_size, workers=workers, timeout=limits.timeout)


def _candidates(wanted: int, epoch: int, num_images: int, replaced_by: tuple[int, int] | None) -> Iterator[int]:
    yield wanted
    if replaced_by is not None:
        seed, purpose = replaced_by
        stream = keyed_stream(seed, epoch, purpose, wanted)
        for _ in range(MAX_REPLACEMENTS):
            yield int(stream.integers(num_images))


def replaced_indices(batch: SharedBatch, log: BadImageLog, setting: str = "data.train") -> Indices:
    """The images that fill all rows of a batch. Raises ValueError if a row has none, or too many are unreadable."""
    if len(batch.indices) < len(batch.rows):
        log.note(batch.bad)
        raise ValueError(no_readable_image(log.images, setting=setting))
    log.add(len(batch.rows), batch.bad)
    return batch.indices
