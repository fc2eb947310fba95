"""Features of a sample of images: nearest neighbours, and the plane in which they vary most."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_THUMBNAIL = 96
_OF_A_CLASS = 8  # at least, where there are many classes, or neighbours of the same class could not be met


@dataclass(frozen=True)
class SampledFeatures:
    """Features of a run's backbone for a sample of images.

    Attributes:
        run: Position of the run on the page.
        weights: The file that the backbone was read from.
        data: Which images these are, in words; runs with the same have the same images in the same order.
        names: Of the images, N of them.
        classes, labels: Class names and the class of each image ``[N]``, or None.
        features: ``[N, D]``, L2-normalised.
        queries: Positions of the images whose neighbours are shown ``[Q]``.
        neighbours, cosines: Of each query, the nearest first ``[Q, K]``.
        thumbnails: Pixels [S, S, 3] uint8 of all images that are shown, by position.
    """

    run: int
    weights: str
    data: str
    names: Sequence[str]
    classes: Sequence[str] | None
    labels: IntArray | None
    features: FloatArray
    queries: IntArray
    neighbors: IntArray
    cosines: FloatArray
    thumbnails: Mapping[int, npt.NDArray[np.uint8]]


def normalized_rows(features: FloatArray) -> FloatArray:
    """Rows of length 1; rows of zeros stay."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    rows: FloatArray = features / np.maximum(lengths, 1e-12)
    return rows


def spread_sample(labels: IntArray | None, total: int, images: int, seed: int) -> IntArray:
    """About ``images`` positions, sorted; of labelled images alike many of each class, of many classes some."""
    order = np.random.Generator(np.random.Philox([seed, 0])).permutation(total)
    if labels is None:
        return np.sort(order[:images]).astype(np.int64)
    classes = np.unique(labels)
    most = max(2, images // min(_OF_A_CLASS, max(1, total // len(classes))))
    if len(classes) > most:
        classes = classes[np.linspace(0, len(classes) - 1, most).round().astype(np.int64)]
    each = max(1, images // len(classes))
    chosen = [order[labels[order] == label][:each] for label in classes]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def drawn_queries(order: IntArray, labels: IntArray | None, number: int) -> IntArray:
    """Drawn images, of as many classes as there are."""
    if labels is None:
        return order[:number]
    met: dict[int, int] = {}
    rank = np.empty(len(order), np.int64)  # how many of its class were drawn before
    for place, label in enumerate(labels[order].tolist()):
        rank[place] = met.get(label, 0)
        met[label] = int(rank[place]) + 1
    return order[np.argsort(rank, kind="stable")][:number]


def nearest_images(features: FloatArray, queries: IntArray, num_neighbors: int) -> tuple[IntArray, FloatArray]:
    """Positions and cosines ``[Q, K]`` of the images most like each query, itself left out; rows of length 1."""
    cosines = features[queries] @ features.T
    cosines[np.arange(len(queries)), queries] = -np.inf
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, : min(num_neighbors, len(features) - 1)]
    return nearest.astype(np.int64), np.take_along_axis(cosines, nearest, axis=1)


def neighbors_of_the_same_class(features: FloatArray, labels: IntArray, num_neighbors: int) -> tuple[float, float]:
    """Share of the nearest neighbours of all images that are of the image's class, and what chance would give."""
    nearest, _ = nearest_images(features, np.arange(len(features)), num_neighbors)
    counts = np.bincount(labels)[labels]
    return float((labels[nearest] == labels[:, None]).mean()), float(((counts - 1) / (len(labels) - 1)).mean())


def principal_plane(features: FloatArray) -> tuple[FloatArray, float]:
    """Principal component analysis: places ``[N, 2]`` and the share of the variance that lies in this plane.

    Of each axis the direction is such that its largest loading is positive, so that a page is the same when it
    is made again.
    """
    centered = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    left, singular, right = np.linalg.svd(centered, full_matrices=False)
    if len(singular) < 2 or singular[0] < 1e-9:
        return np.zeros((len(features), 2), np.float32), 0.0
    signs = np.sign(right[np.arange(2), np.abs(right[:2]).argmax(1)])
    places = left[:, :2] * singular[:2] * signs
    return places.astype(np.float32), float((singular[:2] ** 2).sum() / (singular**2).sum())


def thumbnail(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A square image made small enough for a gallery."""
    if len(pixels) <= _THUMBNAIL:
        return pixels.copy()
    return np.asarray(Image.fromarray(pixels).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS))
