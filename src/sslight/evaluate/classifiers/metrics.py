"""How often the right class was found, and how sure that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_Z95 = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Accuracy:
    """Accuracies in percent.

    Attributes:
        top1: Share of images whose class has the largest score.
        top1_interval: 95 % Wilson interval of ``top1`` for images drawn independently; it does not cover what
            another seed of training would change.
        top5: Share of images whose class is among the five largest scores; None for five classes or fewer.
        num_images: Images that were classified.
        per_class: Class name → its accuracy and its number of images, for classes that have images.
    """

    top1: float
    top1_interval: tuple[float, float]
    top5: float | None
    num_images: int
    per_class: dict[str, tuple[float, int]]


def wilson_interval(num_right: int, num_images: int) -> tuple[float, float]:
    """The 95 % score interval of a share, in percent (Wilson, JASA 1927)."""
    share, spread = num_right / num_images, _Z95**2 / num_images
    middle = share + spread / 2
    half = _Z95 * math.sqrt(share * (1 - share) / num_images + spread / (4 * num_images))
    low, high = (middle - half) / (1 + spread), (middle + half) / (1 + spread)
    return 100 * max(0.0, low), 100 * min(1.0, high)


def label_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """How many classes score at least as much as the right one: ``[N]`` int64, 0 where it alone is first.

    Ties count against the classifier, so that a constant score finds nothing.

    Args:
        scores: ``[N, C]``.
        labels: ``[N]`` in ``0 .. C - 1``.
    """
    own = scores.gather(1, labels[:, None])
    return (~(scores < own)).sum(1) - 1  # NaN is never ahead of anything, and all is ahead of NaN


def accuracy_of_ranks(ranks: Tensor, labels: Tensor, classes: Sequence[str]) -> Accuracy:
    """The accuracies from :func:`label_ranks`; the host waits for the device."""
    ranks, labels = ranks.cpu(), labels.cpu()
    right = ranks == 0
    totals = torch.bincount(labels, minlength=len(classes)).tolist()
    hits = torch.bincount(labels[right], minlength=len(classes)).tolist()
    num_right = int(right.sum())
    return Accuracy(
        top1=100 * num_right / len(ranks),
        top1_interval=wilson_interval(num_right, len(ranks)),
        top5=100 * float((ranks < 5).double().mean()) if len(classes) > 5 else None,
        num_images=len(ranks),
        per_class={
            name: (100 * hit / total, total) for name, hit, total in zip(classes, hits, totals, strict=True) if total
        },
    )
