"""Which classes are taken for which, which images are worst, and the precision of labels that do not exclude others."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sslight.data import Source, printable

_LISTED = 20
_MOST_IN_A_MATRIX = 100  # classes; the file grows with their square
_DRAWS = 200


def mistakes_of(logits: Tensor, labels: Tensor, rows: Tensor, classes: Sequence[str], source: Source) -> dict[str, Any]:
    """The confusion matrix (of up to 100 classes), and the images whose own class is least probable; plain data.

    ``logits [N, C]`` and ``labels [N]`` are of the images of ``source`` at ``rows [N]``.
    """
    size, predicted = len(classes), logits.argmax(1)
    matrix = None
    if size <= _MOST_IN_A_MATRIX:
        matrix = torch.bincount(labels * size + predicted, minlength=size * size).view(size, size).tolist()
    own = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    wrong = [at for at in own.argsort(stable=True).tolist() if predicted[at] != labels[at]]
    return {
        "confusion_matrix": matrix,  # rows: the right class, columns: the predicted one
        "worst_images": [
            {
                "name": printable(source.name(int(rows[at]))),
                "class": classes[int(labels[at])],
                "taken_for": classes[int(predicted[at])],
                "probability": round(float(own[at]), 4),
            }
            for at in wrong[:_LISTED]
        ],
    }


def average_precision(scores: npt.NDArray[Any], targets: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The mean precision at each right image of every column, ``[C]``, NaN for columns without any; ties rank together.

    Args:
        scores: ``[N, C]``.
        targets: ``[N, C]`` of 0 and 1.
    """
    found = np.full(scores.shape[1], np.nan)
    for column in np.flatnonzero(targets.any(0)):
        order = np.argsort(-scores[:, column], kind="stable")
        ranked, right = scores[order, column], np.cumsum(targets[order, column])
        ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # the last of those that tie
        found[column] = np.sum(np.diff(right[ends], prepend=0) * right[ends] / (ends + 1)) / right[-1]
    return found


def mean_average_precision(scores: npt.NDArray[Any], targets: npt.NDArray[Any]) -> float:
    """The mean of :func:`average_precision` over the columns with a right image; 0 without any."""
    found = average_precision(scores, targets)
    return float(found[~np.isnan(found)].mean()) if targets.any() else 0.0


def average_precision_interval(scores: npt.NDArray[Any], targets: npt.NDArray[Any]) -> tuple[float, float]:
    """The 95 % interval of the mean over columns, by drawing images with replacement (percentile bootstrap)."""
    rng = np.random.default_rng(0)
    drawn = (rng.integers(0, len(scores), len(scores)) for _ in range(_DRAWS))
    low, high = np.percentile([mean_average_precision(scores[rows], targets[rows]) for rows in drawn], [2.5, 97.5])
    return float(low), float(high)


def multi_label_result(logits: Tensor, targets: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """What is measured of labels that do not exclude each other, as plain data.

    ``logits [N, C]`` and ``targets [N, C]`` of 0 and 1.
    """
    scores, wanted = logits.numpy(), targets.numpy()
    each, interval = average_precision(scores, wanted), average_precision_interval(scores, wanted)
    counts = wanted.sum(0).tolist()
    return {
        "protocol": "finetune (multi-label)",
        "accuracy": {
            "map": 100 * mean_average_precision(scores, wanted),
            "map_interval": [100 * end for end in interval],
            "num_images": len(wanted),
        },
        "per_class": {
            name: {"accuracy": 100 * float(share), "images": count}
            for name, share, count in zip(classes, each, counts, strict=True)
            if count
        },
    }
