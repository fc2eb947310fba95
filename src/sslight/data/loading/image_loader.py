"""Whole images, one view each: for feature extraction, and to see that a set can be read."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from sslight.data.decoding.decode import decode
from sslight.data.decoding.limits import DEFAULT_LIMITS, ReadLimits, UnreadableImage
from sslight.data.loading import rows
from sslight.data.loading.shared_batches import Indices, Pixels
from sslight.data.sources.bad_images import BadImage, bad_image, describe, no_readable_image
from sslight.data.sources.source import Source, evenly_spread
from sslight.views import center_view

_TRIED, _DECODED_AT_ONCE = 16, 64


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
) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    """Center views in order: images uint8 ``[B, 3, size, size]``, labels int64 ``[B]`` or None, indices int64 ``[B]``.

    The last batch may be smaller. ``resize`` is the shorter side before the center is cut (see
    ``center_view``). The images' memory is used again when the second batch after them is asked
    for. An unreadable image is left out and added to ``bad``; without that list it raises ValueError
    naming the file.
    """
    wanted = np.arange(len(source)) if indices is None else np.asarray(indices, dtype=np.int64)
    batch_size = max(1, min(batch_size, len(wanted)))

    def write_center(image: Tensor, arrays: Sequence[Pixels], row: int, epoch: int, wanted: int, index: int) -> None:
        arrays[0][row] = center_view(image, size, resize).permute(1, 2, 0).numpy()

    shapes = [(batch_size, size, size, 3)]
    pool = rows.image_pool(source, shapes, write_center, batch_size=batch_size, workers=workers, limits=limits)
    cut = (wanted[start : start + batch_size] for start in range(0, len(wanted), batch_size))
    with closing(pool):
        for batch in pool.batches(0, cut):
            if batch.bad and bad is None:
                raise ValueError(f"unreadable image {describe(batch.bad)}; repair it or remove it from the set")
            if bad is not None:
                bad += batch.bad
            if len(found := batch.indices):
                labels = None if source.labels is None else torch.from_numpy(source.labels[found])
                yield batch.square_images(), labels, torch.from_numpy(found)


def check_readable(source: Source, *, setting: str = "data.train", limits: ReadLimits = DEFAULT_LIMITS) -> None:
    """Try a few images, evenly spread. Raises ValueError that names ``setting`` if none of them is readable.

    Raises WorkerFailed if one takes longer than the limit.
    """
    wanted = evenly_spread(len(source), _TRIED)
    bad: list[BadImage] = []
    # In a process of its own, which can be left alone if a read never returns.
    with closing(rows.image_pool(source, [], lambda *_: None, batch_size=1, workers=1, limits=limits)) as pool:
        for tried in pool.batches(0, wanted[:, None]):
            if not tried.bad:
                return
            bad += tried.bad
    raise ValueError(no_readable_image(bad, setting=setting))


def unreadable_images(
    source: Source,
    indices: Indices,
    *,
    workers: int,
    limits: ReadLimits = DEFAULT_LIMITS,
    progress: Callable[[int], None] = lambda images: None,
) -> list[BadImage]:
    """Decode the images at ``indices``; those that cannot be used, with the reasons.

    ``progress`` is called with the number of images done since its last call. Raises WorkerFailed as
    :func:`check_readable` does.
    """
    bad: list[BadImage] = []
    parts = (indices[start : start + _DECODED_AT_ONCE] for start in range(0, len(indices), _DECODED_AT_ONCE))
    pool = rows.image_pool(
        source, [], lambda *_: None, batch_size=_DECODED_AT_ONCE, workers=max(1, workers), limits=limits
    )
    with closing(pool):
        for decoded in pool.batches(0, parts):
            bad += decoded.bad
            progress(len(decoded.rows))
    return bad


def readable_images(
    source: Source, *, seed: int, bad: list[BadImage], setting: str = "data.train", limits: ReadLimits = DEFAULT_LIMITS
) -> Iterator[tuple[int, Tensor]]:
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
