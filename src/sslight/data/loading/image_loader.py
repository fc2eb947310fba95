"""Whole images, one view each: for feature extraction, and to see that a set can be read."""

import threading
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch

from sslight.data.decoding.limits import DEFAULT_LIMITS, ReadLimits
from sslight.data.loading import rows
from sslight.data.loading.shared_batches import Indices, Pixels, RowResult, SharedBatchPool, WorkerFailed, hung_notice
from sslight.data.sources.bad_images import BadImage, describe, no_readable_image
from sslight.data.sources.source import Source
from sslight.views import center_view

_TRIED = 16


def image_batches(
    source: Source,
    *,
    size: int,
    batch_size: int,
    workers: int,
    indices: Indices | None = None,
    resize: int | None = None,
    bad: list[BadImage] | None = None,
    limits: ReadLimits = DEFAULT_LIMITS,
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]]:
    """Centre views in order: images uint8 ``[B, 3, size, size]``, labels int64 ``[B]`` or None, indices int64 ``[B]``.

    The last batch may be smaller. ``resize`` is the shorter side before the centre is cut (see
    ``center_view``). The images' memory is used again when the second batch after them is asked
    for. An unreadable image is left out and added to ``bad``; without that list it raises ValueError
    naming the file.
    """
    wanted = np.arange(len(source)) if indices is None else np.asarray(indices, dtype=np.int64)
    batch_size = max(1, min(batch_size, len(wanted)))
    pool = SharedBatchPool(
        [(batch_size, size, size, 3)],
        partial(_fill_center_view, source, size, resize, limits.max_pixels),
        source.locate,
        batch_size=batch_size,
        workers=workers,
        timeout=limits.timeout,
    )
    try:
        cut = (wanted[start : start + batch_size] for start in range(0, len(wanted), batch_size))
        for batch in pool.batches(0, cut):
            if batch.bad and bad is None:
                raise ValueError(f"unreadable image {describe(batch.bad)}; repair it or leave it out of the set")
            if bad is not None:
                bad += batch.bad
            if len(found := batch.indices):
                labels = None if source.labels is None else torch.from_numpy(source.labels[found])
                yield batch.square_images(), labels, torch.from_numpy(found)
    finally:
        pool.close()


def check_readable(
    source: Source, *, sample: int = _TRIED, setting: str = "data.train", limits: ReadLimits = DEFAULT_LIMITS
) -> None:
    """Try a few images, evenly spread. Raises ValueError that names ``setting`` if none of them is readable.

    Raises WorkerFailed if one takes longer than the limit.
    """
    bad: list[BadImage] = []
    for index in np.unique(np.linspace(0, len(source) - 1, sample).astype(np.int64)).tolist():
        problem = _problem(source, index, limits)
        if not problem:
            return
        bad += problem
    raise ValueError(no_readable_image(bad, setting=setting))


def _problem(source: Source, index: int, limits: ReadLimits) -> tuple[BadImage, ...]:
    """The image if it cannot be read. In a thread of its own, which can be left alone if a read never returns."""
    found: list[tuple[BadImage, ...] | Exception] = []

    def attempt() -> None:
        try:
            found.append(rows.first_readable(source, [index], rows.pixel_reader(source, limits.max_pixels))[1].bad)
        except Exception as error:  # not of the image
            found.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(limits.timeout)
    if not found:
        raise WorkerFailed(hung_notice(source.locate(index), limits.timeout))
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def readable_images(
    source: Source, *, seed: int, bad: list[BadImage], setting: str = "data.train", limits: ReadLimits = DEFAULT_LIMITS
) -> Iterator[tuple[int, torch.Tensor]]:
    """Index and pixels uint8 ``[3, H, W]`` of the images of a set in an order drawn with ``seed``, each once.

    Unreadable ones are passed over and added to ``bad``. Raises ValueError that names ``setting`` if the
    first 16 are all unreadable, or all that there are.
    """
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(source))
    found = False
    for index in order.tolist():
        image, result = rows.first_readable(source, [index], rows.pixel_reader(source, limits.max_pixels))
        bad += result.bad
        if image is not None:
            found = True
            yield index, image
        elif not found and len(bad) == _TRIED:
            break
    if not found:
        raise ValueError(no_readable_image(bad, setting=setting))


def _fill_center_view(
    source: Source,
    size: int,
    resize: int | None,
    max_pixels: int,
    arrays: Sequence[Pixels],
    row: int,
    epoch: int,
    index: int,
) -> RowResult:
    image, result = rows.first_readable(source, [index], rows.pixel_reader(source, max_pixels))
    if image is not None:
        arrays[0][row] = center_view(image, size, resize).permute(1, 2, 0).numpy()
    return result
