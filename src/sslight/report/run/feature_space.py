"""Features of a sample of images: nearest neighbors, and the plane in which they vary most."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_THUMBNAIL = 96
_OF_A_CLASS = 8  # at least, where there are many classes, or neighbors of the same class could not be met


@dataclass(frozen=True)
class SampledFeatures:
    """Features of a run's backbone for a sample of N images, and the K nearest neighbors of each."""

    run: int  # its position on the page
    weights: str  # the file that the backbone was read from
    data: str  # which images, in words; runs with the same have the same images in the same order
    names: Sequence[str]
    classes: Sequence[str] | None
    labels: IntArray | None  # [N]
    features: FloatArray  # [N, D], L2-normalized
    neighbors: IntArray  # positions, the nearest first [N, K]
    cosines: FloatArray  # [N, K]
    queries: IntArray  # positions of the images whose neighbors are shown
    thumbnails: Mapping[int, npt.NDArray[np.uint8]]  # by position, [S, S, 3], of all images that are shown


def spread_sample(labels: IntArray | None, total: int, images: int, seed: int) -> IntArray:
    """About ``images`` positions, sorted; of labeled images alike many of each class, of many classes some."""
    order = np.random.Generator(np.random.Philox([seed, 0])).permutation(total)
    if labels is None:
        return np.sort(order[:images])
    classes = np.unique(labels)
    classes = evenly(classes, max(2, images // min(_OF_A_CLASS, max(1, total // len(classes)))))
    each = max(1, images // len(classes))
    return np.sort(np.concatenate([order[labels[order] == label][:each] for label in classes]))


def drawn_queries(labels: IntArray | None, total: int, number: int, seed: int) -> IntArray:
    """Positions of drawn images, of as many classes as there are."""
    order = np.random.Generator(np.random.Philox([seed, 1])).permutation(total)
    if labels is None:
        return order[:number]
    drawn = labels[order]
    drawn_before = [np.count_nonzero(drawn[:place] == label) for place, label in enumerate(drawn)]
    return order[np.argsort(drawn_before, kind="stable")][:number]


def evenly(classes: IntArray, most: int) -> IntArray:
    """At most ``most`` of the classes, evenly spread."""
    if len(classes) <= most:
        return classes
    return classes[np.linspace(0, len(classes) - 1, most).round().astype(np.int64)]


def neighbors_of_the_same_class(neighbors: IntArray, labels: IntArray) -> tuple[float, float]:
    """Share of the neighbors ``[N, K]`` of all images that are of the image's class, and what chance would give."""
    counts = np.bincount(labels)[labels]
    return float((labels[neighbors] == labels[:, None]).mean()), float(((counts - 1) / (len(labels) - 1)).mean())


def principal_plane(features: FloatArray) -> tuple[FloatArray, float]:
    """Principal component analysis: places ``[N, 2]`` and the share of the variance that lies in this plane.

    Of each axis the largest loading is positive, so that a page is the same when it is made again.
    """
    centered = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    left, singular, right = np.linalg.svd(centered, full_matrices=False)
    if len(singular) < 2 or singular[0] < 1e-9:
        return np.zeros((len(features), 2), np.float32), 0.0
    signs = np.sign(right[np.arange(2), np.abs(right[:2]).argmax(1)])
    places = left[:, :2] * singular[:2] * signs
    return places.astype(np.float32), float((singular[:2] ** 2).sum() / (singular**2).sum())


def thumbnail(pixels: npt.NDArray[np.uint8], side: int = _THUMBNAIL) -> npt.NDArray[np.uint8]:
    """A square image made small enough for a gallery; ``side`` in px."""
    if len(pixels) <= side:
        return pixels.copy()
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS))
