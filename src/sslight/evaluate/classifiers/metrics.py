"""How often the right class was found, and how sure that is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sslight.intervals import wilson_interval

_CONFUSIONS = 10


@dataclass(frozen=True)
class Accuracy:
    """Accuracies in percent.

    ``top1_interval`` is the 95 % Wilson interval for images drawn independently; it does not cover what another seed
    of training would change.
    """

    top1: float  # images whose class has the largest score; classes that tie share an image
    top1_interval: tuple[float, float]
    top5: float | None  # images whose class is among the five largest scores; None for five classes or fewer
    num_images: int
    per_class: dict[str, tuple[float, int]]  # name → accuracy and number of images, for classes that have images


def label_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """The rank of the right class: how many others score more, and how many as much, ``[N, 2]`` int64.

    ``scores [N, C]`` are float32, since rounded ones tie; ``labels [N]`` are in ``0 .. C - 1``. What is no number
    (NaN) is ahead of the right class, and all is ahead of a right class without a number.
    """
    own = scores.gather(1, labels[:, None])
    behind, tied = (scores < own).sum(1), (scores == own).sum(1)
    return torch.stack([scores.shape[1] - behind - tied.clamp(min=1), (tied - 1).clamp(min=0)], 1)


def label_answers(scores: Tensor, labels: Tensor) -> Tensor:
    """:func:`label_ranks` and, third, the class that scores most, ``[N, 3]``."""
    return torch.cat([label_ranks(scores, labels), scores.argmax(1, keepdim=True)], 1)


def largest_confusions(answers: Tensor, labels: Tensor, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Of which class most images are taken for which other, the ten most frequent, from :func:`label_answers`.

    An image whose class ties for the first place is not taken for another.
    """
    answers, labels = answers.cpu(), labels.cpu()
    wrong = answers[:, 0] > 0
    taken = Counter(zip(labels[wrong].tolist(), answers[wrong, 2].tolist(), strict=True))
    return [
        {"class": classes[one], "taken_for": classes[other], "images": number}
        for (one, other), number in taken.most_common(_CONFUSIONS)
    ]


def hits(ranks: Tensor, k: int = 1) -> Tensor:
    """How far each right class is among the first k, ``[N]`` float64 of 0–1, from :func:`label_ranks`.

    Classes that tie share their places, so that of two that tie for the first each is right by half.
    """
    return ((k - ranks[:, 0]).double() / (ranks[:, 1] + 1)).clamp(0, 1)


def accuracy_of_ranks(ranks: Tensor, labels: Tensor, classes: Sequence[str]) -> Accuracy:
    """The accuracies from :func:`label_ranks`; the host waits for the device."""
    ranks, labels = ranks.cpu(), labels.cpu()
    right = hits(ranks)
    totals = torch.bincount(labels, minlength=len(classes)).tolist()
    by_class = torch.bincount(labels, right, minlength=len(classes)).tolist()
    num_right = float(right.sum())
    return Accuracy(
        top1=100 * num_right / len(ranks),
        top1_interval=wilson_interval(num_right, len(ranks)),
        top5=100 * float(hits(ranks, 5).mean()) if len(classes) > 5 else None,
        num_images=len(ranks),
        per_class={
            name: (100 * hit / total, total)
            for name, hit, total in zip(classes, by_class, totals, strict=True)
            if total
        },
    )
