"""How far an exported file is from the PyTorch network on real images, and how far it may be."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from sslight.intervals import Difference, paired_difference

Nearest = Callable[[Tensor], Tensor]
"""Features ``[N, D]`` → for each the row of its nearest neighbor, itself left out, ``[N]``."""

Classify = Callable[[Tensor, Tensor], Tensor]
"""Features ``[N, D]``, labels ``[N]`` → kNN class of each, itself left out, ``[N]``."""

Precision = Callable[[Tensor, Tensor, Tensor], tuple[float, Difference]]
"""Scores before and after, labels of 0 and 1, all ``[N, C]`` → mean average precision before, and what is gained."""


@dataclass(frozen=True)
class Measures:
    """What the neighbor of this room measures."""

    nearest: Nearest
    classify: Classify
    precision: Precision


_ROUNDING = 1e-5  # of the largest output: what float32 may change
_EXACT, _TINY = 200.0, 1e-30
_TIED = 1e-5  # cosines of two neighbors that are equally near
_ALIKE = 0.1  # of the size of features: a network that tells images apart by less is at fault before the file is


@dataclass(frozen=True)
class Agreement:
    """An exported file against the PyTorch network, on the same images.

    ``knn`` figures are None without labels, ``same_class`` without a classifier, ``accuracy`` without either.
    """

    num_images: int
    largest_difference: float  # of any two features, and of any two logits
    largest_output: float  # the PyTorch network's largest absolute value, for scale
    cosine_mean: float  # of the two feature vectors of an image
    cosine_min: float
    same_neighbor: float  # share of images whose nearest neighbor among the others is the same
    signal_to_noise: float  # dB: how much images differ from their mean against what the file changes; it sees scale
    spread: float = 1.0  # the same differences (root mean square) for the size of the features, in the PyTorch network
    knn_top1_before: float | None = None  # share that kNN, each left out of its own vote, classifies rightly
    knn_top1_after: float | None = None
    same_knn_class: float | None = None  # share that kNN gives the same class
    same_class: float | None = None  # share that the classifier gives the same class; with ``multi_label`` of labels
    accuracy_before: float | None = None  # of the classifier, in percent; with ``multi_label`` mean average precision
    accuracy: Difference | None = None  # what the file gains or loses of that, in points
    num_labeled: int = 0  # images of a class that the classifier knows, on which that was measured
    multi_label: bool = False  # whether each class is an answer of its own


@dataclass(frozen=True)
class Tolerance:
    """The least agreement. A classifier is judged by its classes, features without one by the first three and dB."""

    cosine: float  # mean
    same_neighbor: float
    same_knn_class: float
    difference: float | None  # the largest, of the largest output
    signal_to_noise: float | None  # dB
    same_class: float
    accuracy: float = 1.0  # largest loss, in points


FLOAT32 = Tolerance(
    0.9999, same_neighbor=0.99, same_knn_class=0.99, difference=1e-3, signal_to_noise=40, same_class=0.99
)
FLOAT16 = Tolerance(
    0.999, same_neighbor=0.95, same_knn_class=0.97, difference=0.02, signal_to_noise=30, same_class=0.97
)
INT8 = Tolerance(0.98, same_neighbor=0.5, same_knn_class=0.8, difference=None, signal_to_noise=5, same_class=0.8)


def compare(
    before: Sequence[Tensor],
    after: Sequence[Tensor],
    labels: Tensor | None,
    *,
    measures: Measures,
    multi_label: bool = False,
) -> Agreement:
    """Compare what the PyTorch network (``before``) and a file (``after``) give for the same images.

    Both are features ``[N, D]``, and logits ``[N, C]`` with a classifier; what else a file gives is left alone.
    ``labels [N]`` from C on are of classes that the classifier does not have. With ``multi_label`` each logit is an
    answer (yes from 0 on), and ``labels [N, C]`` of 0 and 1 are those that are right.
    """
    pairs = list(zip(before, after[: len(before)], strict=True))
    old_features, new_features = (features.double() for features in pairs[0])
    cosine = F.cosine_similarity(old_features, new_features)
    spread = float((old_features - old_features.mean(0)).square().sum())
    noise = float((old_features - new_features).square().sum())
    accuracy: dict[str, Any] = {}
    if labels is not None and labels.ndim == 1:
        old, new = (measures.classify(features, labels) for features in pairs[0])
        accuracy = {
            "knn_top1_before": _share(old == labels),
            "knn_top1_after": _share(new == labels),
            "same_knn_class": _share(old == new),
        }
    if len(pairs) > 1 and multi_label:
        accuracy |= {"same_class": _same_labels(*pairs[1]), "multi_label": True}
        if labels is not None and labels.ndim == 2:
            value, change = measures.precision(*pairs[1], labels)
            accuracy |= {"accuracy_before": value, "accuracy": change, "num_labeled": len(labels)}
    elif len(pairs) > 1:
        old, new = (logits.argmax(1) for logits in pairs[1])
        accuracy["same_class"] = _share(old == new)
        if labels is not None and (known := labels < pairs[1][0].shape[1]).any():
            after_it, before_it = ((found == labels)[known] for found in (new, old))
            accuracy |= {
                "accuracy_before": 100 * _share(before_it),
                "accuracy": paired_difference(after_it.tolist(), before_it.tolist()),
                "num_labeled": int(known.sum()),
            }
    # Of features and logits, those that differ more for their size; NaN is the worst of all.
    sizes = [(float((old - new).abs().max()), float(old.abs().max())) for old, new in pairs]
    difference, output = max(sizes, key=lambda size: math.inf if math.isnan(size[0]) else size[0] / (size[1] or 1.0))
    return Agreement(
        num_images=len(cosine),
        largest_difference=difference,
        largest_output=output,
        cosine_mean=float(cosine.mean()),
        cosine_min=float(cosine.min()),
        same_neighbor=_share(_same_neighbor(before[0], after[0], measures.nearest)),
        signal_to_noise=min(_EXACT, 10 * math.log10(max(spread, _TINY) / max(noise, _TINY))),
        spread=math.sqrt(spread / max(float(old_features.square().sum()), _TINY)),
        **accuracy,
    )


def check(agreement: Agreement, tolerance: Tolerance, name: str, remedy: str | None = None) -> None:
    """Raise ValueError for a file that disagrees, with the number, the limit and the remedy, if one is known."""
    limit = math.inf if tolerance.difference is None else tolerance.difference * agreement.largest_output
    # Where features hardly differ between images, votes turn on rounding: that says nothing against the file.
    if agreement.largest_difference <= _ROUNDING * agreement.largest_output:
        return
    settings = "tolerance.cosine and tolerance.knn"
    if agreement.same_class is None:
        problem = _of_features(agreement, tolerance)
    else:
        problem, settings = _of_classifier(agreement, tolerance), "tolerance.same_class and tolerance.accuracy"
    # Negated, so that NaN is refused too.
    if not math.isfinite(agreement.largest_difference):
        problem = "its outputs are not finite numbers"
    elif not problem and not agreement.largest_difference <= limit:
        problem = f"its outputs differ by up to {agreement.largest_difference:.2g}, more than {limit:.2g}"
    if not problem:
        return
    if remedy is None:
        usual = "give more calibration images or" if "int8" in name else "report this network, and"
        remedy = f"{usual} export another format"
    raise ValueError(
        f"{name} disagrees with the PyTorch network on {agreement.num_images} images of data.check and is not "
        f"written: {problem}; {remedy}; {settings} accept it as it is."
    )


def _of_features(agreement: Agreement, tolerance: Tolerance) -> str:
    share, least, what = agreement.same_neighbor, tolerance.same_neighbor, "nearest neighbor"
    if agreement.same_knn_class is not None:
        share, least, what = agreement.same_knn_class, tolerance.same_knn_class, "kNN class"
    if not agreement.cosine_mean >= tolerance.cosine:
        return f"the mean cosine of its features is {agreement.cosine_mean:.5f}, below {tolerance.cosine:g}"
    if tolerance.signal_to_noise is not None and not agreement.signal_to_noise >= tolerance.signal_to_noise:
        problem = (
            f"what it changes is {agreement.signal_to_noise:.0f} dB below what tells images apart, less than "
            f"{tolerance.signal_to_noise:.0f} dB"
        )
    elif not share >= least:
        problem = f"{share:.1%} of the images keep their {what}, fewer than {least:.1%}"
    else:
        return ""
    if agreement.spread < _ALIKE:
        problem += (
            f" (the network's own features differ between images by {agreement.spread:.1%} of their size alone, so "
            "little decides: train it longer)"
        )
    return problem


def _of_classifier(agreement: Agreement, tolerance: Tolerance) -> str:
    """What is wrong with the classes; features may move where the classifier does not look."""
    found = agreement.accuracy
    if agreement.same_class is not None and not agreement.same_class >= tolerance.same_class:
        beside = "" if found is None else f" (accuracy {found.value:+.1f} points [{found.low:+.1f}, {found.high:+.1f}])"
        what = f"gives {agreement.same_class:.1%} of the images the class that the network gives them{beside}"
        if agreement.multi_label:
            what = f"agrees with the network on {agreement.same_class:.1%} of the labels that either gives or withholds"
        return f"its classifier {what}, fewer than {tolerance.same_class:.1%}"
    if found is not None and found.high < 0 and -found.value > tolerance.accuracy:  # a loss beyond chance
        what = "mean average precision" if agreement.multi_label else "accuracy"
        return (
            f"its classifier loses {-found.value:.1f} points [{-found.high:.1f}, {-found.low:.1f}] of {what} on the "
            f"{agreement.num_labeled} images with labels, more than {tolerance.accuracy:g}"
        )
    return ""


def _same_neighbor(before: Tensor, after: Tensor, nearest: Nearest) -> Tensor:
    """Whether the neighbors are the same, or equally near: among equal images either is right."""
    old, new = nearest(before), nearest(after)
    unit = F.normalize(before, dim=1)
    behind = (unit * unit[old]).sum(1) - (unit * unit[new]).sum(1)
    return (old == new) | (behind <= _TIED)


def _same_labels(before: Tensor, after: Tensor) -> float:
    """Agreement on logits ``[N, C]``: twice the common answers of all that both give; of yes and no the smaller.

    Where few labels hold for an image, a file that gives none at all still shares nearly all answers.
    """
    old, new = before >= 0, after >= 0
    answers = [(old, new), (~old, ~new)]
    return min(2 * float((a & b).sum()) / given if (given := int(a.sum() + b.sum())) else 1.0 for a, b in answers)


def _share(values: Tensor) -> float:
    return float(values.double().mean())
