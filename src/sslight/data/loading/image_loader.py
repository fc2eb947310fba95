"""Whole images, one view each: for feature extraction, and to see that a set can be read."""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from sslight.data.decoding.decode import decode
from sslight.data.decoding.limits import DEFAULT_LIMITS, ReadLimits, UnreadableImage
from sslight.data.loading.shared_batches import Indices, Pixels, RowResult, SharedBatchPool, WorkerFailed, hung_notice
from sslight.data.sources.bad_images import BadImage, bad_image, describe, no_readable_image
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
        _FillCenterView(source, size, resize, limits.max_pixels),
        source.locate,
        batch_size=batch_size,
        workers=workers,
        timeout=limits.timeout,
    )
    try:
        cut = (wanted[start : start + batch_size] for start in range(0, len(wanted), batch_size))
        for batch in pool.batches(0, cut):
            unreadable = [image for row in batch.rows for image in row.bad]
            if unreadable and bad is None:
                raise ValueError(f"unreadable image {describe(unreadable)}; repair it or leave it out of the set")
            rows = np.array([row.index for row in batch.rows], dtype=np.int64)
            pixels = batch.arrays[0][: len(rows)]
            if unreadable and bad is not None:
                bad += unreadable
                readable = np.array([not row.bad for row in batch.rows])
                rows, pixels = rows[readable], pixels[readable]
                if not len(rows):
                    continue
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
            labels = None if source.labels is None else torch.from_numpy(source.labels[rows])
            yield images, labels, torch.from_numpy(rows)
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
        problem = _try(source, index, limits)
        if problem is None:
            return
        bad.append(problem)
    raise ValueError(no_readable_image(bad, setting=setting))


def _try(source: Source, index: int, limits: ReadLimits) -> BadImage | None:
    """What is wrong with an image. In a thread of its own, which can be left alone if a read never returns."""
    found: list[BadImage | Exception | None] = []

    def attempt() -> None:
        try:
            decode(source.read(index), max_pixels=limits.max_pixels)
            found.append(None)
        except (UnreadableImage, OSError) as error:
            found.append(bad_image(source, index, error))
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
        try:
            image = decode(source.read(index), max_pixels=limits.max_pixels)
        except (UnreadableImage, OSError) as error:
            bad.append(bad_image(source, index, error))
            if not found and len(bad) == _TRIED:
                break
        else:
            found = True
            yield index, image
    if not found:
        raise ValueError(no_readable_image(bad, setting=setting))


class _FillCenterView:
    def __init__(self, source: Source, size: int, resize: int | None, max_pixels: int) -> None:
        self._source = source
        self._max_pixels = max_pixels
        self._size = size
        self._resize = resize

    def __call__(self, arrays: Sequence[Pixels], row: int, epoch: int, index: int) -> RowResult:
        try:
            image = decode(self._source.read(index), max_pixels=self._max_pixels)
        except (UnreadableImage, OSError) as error:
            return RowResult(index, (bad_image(self._source, index, error),))
        view = center_view(image, self._size, self._resize)
        arrays[0][row] = view.permute(1, 2, 0).numpy()
        return RowResult(index)
