"""How far an exported file is from the PyTorch network on real images, and how far it may be."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

Nearest = Callable[[Tensor], Tensor]
"""Features ``[N, D]`` → for each the row of its nearest neighbor, itself left out, ``[N]``."""

Classify = Callable[[Tensor, Tensor], Tensor]
"""Features ``[N, D]``, labels ``[N]`` → kNN class of each, itself left out, ``[N]``."""

_ROUNDING = 1e-5  # of the largest output: what float32 may change
_EXACT, _TINY = 200.0, 1e-30
_TIED = 1e-5  # cosines of two neighbors that are equally near


@dataclass(frozen=True)
class Agreement:
    """An exported file against the PyTorch network, on the same images.

    ``knn`` figures are None without labels, ``same_class`` without a classifier.
    """

    num_images: int
    largest_difference: float  # of any two features, and of any two logits
    largest_output: float  # the PyTorch network's largest absolute value, for scale
    cosine_mean: float  # of the two feature vectors of an image
    cosine_min: float
    same_neighbor: float  # share of images whose nearest neighbor among the others is the same
    signal_to_noise: float  # dB: how much images differ from their mean against what the file changes; it sees scale
    knn_top1_before: float | None = None  # share that kNN, each left out of its own vote, classifies rightly
    knn_top1_after: float | None = None
    same_knn_class: float | None = None  # share that kNN gives the same class
    same_class: float | None = None  # share that the classifier gives the same class


@dataclass(frozen=True)
class Tolerance:
    """The least agreement: mean cosine, share of equal neighbors or kNN classes; largest relative difference."""

    cosine: float
    same_neighbor: float
    same_knn_class: float
    difference: float | None
    signal_to_noise: float | None  # dB


FLOAT32 = Tolerance(cosine=0.9999, same_neighbor=0.99, same_knn_class=0.99, difference=1e-3, signal_to_noise=40.0)
FLOAT16 = Tolerance(cosine=0.999, same_neighbor=0.95, same_knn_class=0.97, difference=0.02, signal_to_noise=30.0)
INT8 = Tolerance(cosine=0.98, same_neighbor=0.5, same_knn_class=0.8, difference=None, signal_to_noise=5.0)


def compare(
    before: Sequence[Tensor], after: Sequence[Tensor], *, labels: Tensor | None, nearest: Nearest, classify: Classify
) -> Agreement:
    """Compare what the PyTorch network (``before``) and a file (``after``) give for the same images.

    Both are features ``[N, D]``, and logits ``[N, C]`` with a classifier.
    """
    pairs = list(zip(before, after, strict=True))
    cosine = F.cosine_similarity(before[0].double(), after[0].double())
    spread = float((before[0].double() - before[0].double().mean(0)).square().sum())
    noise = float((before[0].double() - after[0].double()).square().sum())
    accuracy = {}
    if labels is not None:
        old, new = (classify(features, labels) for features in pairs[0])
        accuracy = {
            "knn_top1_before": _share(old == labels),
            "knn_top1_after": _share(new == labels),
            "same_knn_class": _share(old == new),
        }
    if len(pairs) > 1:
        accuracy["same_class"] = _share(pairs[1][0].argmax(1) == pairs[1][1].argmax(1))
    # Of features and logits, those that differ more for their size; NaN is the worst of all.
    sizes = [(float((old - new).abs().max()), float(old.abs().max())) for old, new in pairs]
    difference, output = max(sizes, key=lambda size: math.inf if math.isnan(size[0]) else size[0] / (size[1] or 1.0))
    return Agreement(
        num_images=len(cosine),
        largest_difference=difference,
        largest_output=output,
        cosine_mean=float(cosine.mean()),
        cosine_min=float(cosine.min()),
        same_neighbor=_share(_same_neighbor(before[0], after[0], nearest)),
        signal_to_noise=min(_EXACT, 10 * math.log10(max(spread, _TINY) / max(noise, _TINY))),
        **accuracy,
    )


def check(agreement: Agreement, tolerance: Tolerance, name: str) -> None:
    """Raise ValueError for a file that disagrees, with the number and the limit."""
    share, least, what = agreement.same_neighbor, tolerance.same_neighbor, "nearest neighbor"
    if agreement.same_knn_class is not None:
        share, least, what = agreement.same_knn_class, tolerance.same_knn_class, "kNN class"
    limit = math.inf if tolerance.difference is None else tolerance.difference * agreement.largest_output
    remedy = (
        "give more calibration images, set int8.float_layers, or accept it with tolerance.cosine and tolerance.knn"
        if "int8" in name
        else "export another format, and report this network; tolerance.cosine and tolerance.knn accept it as it is"
    )
    # Where features hardly differ between images, votes turn on rounding: that says nothing against the file.
    if tolerance.difference is not None and agreement.largest_difference <= _ROUNDING * agreement.largest_output:
        return
    # Negated, so that NaN is refused too.
    if not math.isfinite(agreement.largest_difference):
        problem = "its outputs are not finite numbers"
    elif not agreement.cosine_mean >= tolerance.cosine:
        problem = f"the mean cosine of its features is {agreement.cosine_mean:.5f}, below {tolerance.cosine:g}"
    elif tolerance.signal_to_noise is not None and not agreement.signal_to_noise >= tolerance.signal_to_noise:
        problem = (
            f"what it changes is {agreement.signal_to_noise:.0f} dB below what tells images apart, less than "
            f"{tolerance.signal_to_noise:.0f} dB"
        )
    elif not share >= least:
        problem = f"{share:.1%} of the images keep their {what}, fewer than {least:.1%}"
    elif agreement.same_class is not None and not agreement.same_class >= tolerance.same_knn_class:
        least = tolerance.same_knn_class
        problem = f"{agreement.same_class:.1%} of the images keep the class of the classifier, fewer than {least:.1%}"
    elif not agreement.largest_difference <= limit:
        problem = f"its outputs differ by up to {agreement.largest_difference:.2g}, more than {limit:.2g}"
    else:
        return
    raise ValueError(
        f"{name} disagrees with the PyTorch network on {agreement.num_images} images of data.check and is not "
        f"written: {problem}; {remedy}."
    )


def _same_neighbor(before: Tensor, after: Tensor, nearest: Nearest) -> Tensor:
    """Whether the neighbors are the same, or equally near: among equal images either is right."""
    old, new = nearest(before), nearest(after)
    unit = F.normalize(before, dim=1)
    behind = (unit * unit[old]).sum(1) - (unit * unit[new]).sum(1)
    return (old == new) | (behind <= _TIED)


def _share(values: Tensor) -> float:
    return float(values.double().mean())
