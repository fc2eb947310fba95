"""Which classes are taken for which, which images are worst, and the precision of labels that do not exclude others."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sslight.data import Source, printable
from sslight.intervals import Difference

_LISTED = 20
_LABELS, _OF_A_LABEL = 50, 4  # labels of which images are listed, and how many of each kind
_MOST_IN_A_MATRIX = 100  # classes; the file grows with their square
_DRAWS, _DRAWS_FOR_AN_ERROR = 500, 100

Array = npt.NDArray[Any]


def mistakes_of(logits: Tensor, labels: Tensor, rows: Tensor, classes: Sequence[str], source: Source) -> dict[str, Any]:
    """The confusion matrix (of up to 100 classes), and the images that are most surely taken for another class.

    ``logits [N, C]`` and ``labels [N]`` are of the images of ``source`` at ``rows [N]``. Plain data.
    """
    size, predicted = len(classes), logits.argmax(1)
    matrix = None
    if size <= _MOST_IN_A_MATRIX:
        matrix = torch.bincount(labels * size + predicted, minlength=size * size).view(size, size).tolist()
    probabilities = logits.softmax(1)
    sure, own = probabilities.amax(1), probabilities.gather(1, labels[:, None])[:, 0]
    wrong = [at for at in sure.argsort(descending=True, stable=True).tolist() if predicted[at] != labels[at]]
    return {
        "confusion_matrix": matrix,  # rows: the right class, columns: the predicted one
        "worst_images": [
            {
                "name": printable(source.name(int(rows[at]))),
                "class": classes[int(labels[at])],
                "probability": round(float(own[at]), 4),
                "taken_for": classes[int(predicted[at])],
                "its_probability": round(float(sure[at]), 4),
            }
            for at in wrong[:_LISTED]
        ],
    }


class _Ranking:
    """Images by falling score in each column, of which precisions follow for any weights of the images.

    ``scores [N, C]``; ``targets [N, C]`` of 0 and 1.
    """

    def __init__(self, scores: Array, targets: Array) -> None:
        number = len(scores)
        self._order = np.argsort(-scores, axis=0, kind="stable")
        ranked = np.take_along_axis(scores, self._order, axis=0)
        self._right = np.take_along_axis(targets, self._order, axis=0) > 0
        is_last = np.concatenate([ranked[1:] != ranked[:-1], np.ones_like(self._right[:1])])  # of those that tie
        places = np.where(is_last, np.arange(number)[:, None], number)
        self._ends = np.minimum.accumulate(places[::-1], axis=0)[::-1]

    def precisions(self, weights: Array) -> npt.NDArray[np.float64]:
        """Average precision of each column if each image is there as often as ``weights [N]`` say; NaN for none."""
        there = weights[self._order]
        right = there * self._right
        precision = np.cumsum(right, axis=0) / np.maximum(np.cumsum(there, axis=0), 1)
        found, total = (right * np.take_along_axis(precision, self._ends, axis=0)).sum(0), right.sum(0)
        each: npt.NDArray[np.float64] = np.divide(found, total, out=np.full(len(total), np.nan), where=total > 0)
        return each


def average_precision(scores: Array, targets: Array) -> npt.NDArray[np.float64]:
    """The mean precision at each right image of every column, ``[C]``, NaN for columns without any; ties rank together.

    Args:
        scores: ``[N, C]``.
        targets: ``[N, C]`` of 0 and 1.
    """
    return _Ranking(scores, targets).precisions(np.ones(len(scores), np.int64))


def mean_average_precision(scores: Array, targets: Array) -> float:
    """The mean of :func:`average_precision` over the columns with a right image; 0 without any."""
    return _mean(average_precision(scores, targets))


def average_precision_interval(scores: Array, targets: Array) -> tuple[float, float]:
    """The 95 % interval of the mean over columns, by drawing images with replacement (percentile bootstrap)."""
    low, high = np.percentile(_drawn(scores, targets, _DRAWS), [2.5, 97.5])
    return float(low), float(high)


def average_precision_error(scores: Array, targets: Array) -> float:
    """The standard error of the mean over columns, by the same.

    As if there were two more images with all labels, one ahead of all and one behind them: so it is not 0 where all are
    in order.
    """
    scores = np.concatenate([scores, scores.max(0, keepdims=True) + 1, scores.min(0, keepdims=True) - 1])
    targets = np.concatenate([targets, np.ones_like(targets[:2])])
    return float(_drawn(scores, targets, _DRAWS_FOR_AN_ERROR).std())


def paired_precision_difference(one: Array, other: Array, targets: Array) -> Difference:
    """What the mean average precision of ``one [N, C]`` has more than that of ``other``, in points.

    Both are scores of the same images, which are drawn with replacement for both at once (percentile bootstrap).
    """
    value = mean_average_precision(one, targets) - mean_average_precision(other, targets)
    drawn = _drawn(one, targets, _DRAWS) - _drawn(other, targets, _DRAWS)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Difference(100 * value, 100 * float(low), 100 * float(high))


def _drawn(scores: Array, targets: Array, draws: int) -> npt.NDArray[np.float64]:
    """Means over columns for images drawn with replacement, ``[draws]``; the same draws for as many images."""
    ranking, number, rng = _Ranking(scores, targets), len(scores), np.random.default_rng(0)
    weights = (np.bincount(rng.integers(0, number, number), minlength=number) for _ in range(draws))
    return np.array([_mean(ranking.precisions(each)) for each in weights])


def _mean(precisions: npt.NDArray[np.float64]) -> float:
    known = precisions[~np.isnan(precisions)]
    return float(known.mean()) if len(known) else 0.0


def multi_label_result(
    logits: Tensor, targets: Tensor, rows: Tensor, classes: Sequence[str], source: Source
) -> dict[str, Any]:
    """What is measured of labels that do not exclude each other, as plain data.

    ``logits [N, C]`` and ``targets [N, C]`` of 0 and 1 are of the images of ``source`` at ``rows [N]``.
    """
    scores, wanted = logits.numpy(), targets.numpy()
    each, interval = average_precision(scores, wanted), average_precision_interval(scores, wanted)
    counts = wanted.sum(0).tolist()
    worst_first = [int(at) for at in np.argsort(each, kind="stable") if counts[at]]
    return {
        "protocol": "finetune (multi-label)",
        "accuracy": {
            "map": 100 * _mean(each),
            "map_interval": [100 * end for end in interval],
            "num_images": len(wanted),
        },
        "per_class": {
            name: {"accuracy": 100 * float(share), "images": count}
            for name, share, count in zip(classes, each, counts, strict=True)
            if count
        },
        "worst_images": [
            {
                "name": printable(source.name(int(rows[at]))),
                "class": classes[label],
                "labeled": bool(wanted[at, label]),
                "probability": round(float(logits[at, label].sigmoid()), 4),
            }
            for label in worst_first[:_LABELS]
            for at in _out_of_order(scores[:, label], wanted[:, label])
        ],
    }


def _out_of_order(scores: Array, wanted: Array) -> list[int]:
    """Positions of images without a label that score most, then of images with it that score least.

    Only those count that are on the wrong side of an image of the other kind.
    """
    order = np.argsort(-scores, kind="stable")
    without, with_it = (order[wanted[order] == value] for value in (0, 1))
    if not len(without):
        return []
    above = without[scores[without] >= scores[with_it].min()]
    below = with_it[scores[with_it] <= scores[without].max()]
    return [*above[:_OF_A_LABEL].tolist(), *below[::-1][:_OF_A_LABEL].tolist()]
