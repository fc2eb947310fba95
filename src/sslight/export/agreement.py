"""How far an exported file is from the PyTorch network on real images, and how far it may be."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

Nearest = Callable[[Tensor], Tensor]
"""Features ``[N, D]`` → for each the row of its nearest neighbour, itself left out, ``[N]``."""

Classify = Callable[[Tensor, Tensor, int], Tensor]
"""Features ``[N, D]``, labels ``[N]``, number of classes → kNN class of each, itself left out, ``[N]``."""

_TIED = 1e-5  # cosines of two neighbours that are equally near


@dataclass(frozen=True)
class Outputs:
    """What a network gave for the images of data.check: ``features [N, D]``, ``logits [N, C]`` or None."""

    features: Tensor
    logits: Tensor | None


@dataclass(frozen=True)
class Agreement:
    """An exported file against the PyTorch network, on the same images.

    Attributes:
        num_images: Images that were compared.
        largest_difference: Of any two features, and of any two logits.
        largest_output: Largest absolute value that the PyTorch network gave, for scale.
        cosine_mean, cosine_min: Of the two feature vectors of an image.
        same_neighbor: Share of images whose nearest neighbour among the others is the same.
        knn_top1_before, knn_top1_after: Share of images that kNN (each left out of its own vote) classifies
            rightly with the PyTorch network's features and with the file's; None without labels.
        same_knn_class: Share of images that get the same class from both; None without labels.
        same_class: Share of images to which the classifier gives the same class; None without one.
    """

    num_images: int
    largest_difference: float
    largest_output: float
    cosine_mean: float
    cosine_min: float
    same_neighbor: float
    knn_top1_before: float | None = None
    knn_top1_after: float | None = None
    same_knn_class: float | None = None
    same_class: float | None = None


@dataclass(frozen=True)
class Tolerance:
    """The least agreement: mean cosine, share of equal neighbours or kNN classes; largest relative difference."""

    cosine: float
    same_neighbor: float
    same_knn_class: float
    difference: float | None


FLOAT32 = Tolerance(cosine=0.9999, same_neighbor=0.99, same_knn_class=0.99, difference=1e-3)
INT8 = Tolerance(cosine=0.98, same_neighbor=0.5, same_knn_class=0.8, difference=None)


def compare(
    before: Outputs,
    after: Outputs,
    *,
    labels: Tensor | None,
    num_classes: int,
    nearest: Nearest,
    classify: Classify,
) -> Agreement:
    """Compare what the PyTorch network (``before``) and a file (``after``) gave for the same images."""
    pairs = [(before.features, after.features)]
    if before.logits is not None and after.logits is not None:
        pairs.append((before.logits, after.logits))
    cosine = F.cosine_similarity(before.features.double(), after.features.double())
    accuracy = {}
    if labels is not None:
        old, new = (classify(part.features, labels, num_classes) for part in (before, after))
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
        num_images=len(before.features),
        largest_difference=difference,
        largest_output=output,
        cosine_mean=float(cosine.mean()),
        cosine_min=float(cosine.min()),
        same_neighbor=_share(_same_neighbor(before.features, after.features, nearest)),
        **accuracy,
    )


def check(agreement: Agreement, tolerance: Tolerance, name: str) -> None:
    """Refuse a file that disagrees.

    Raises:
        ValueError: beyond the tolerance; the sentence has the number and the limit.
    """
    by_class = agreement.same_knn_class is not None
    share = agreement.same_knn_class if agreement.same_knn_class is not None else agreement.same_neighbor
    least = tolerance.same_knn_class if by_class else tolerance.same_neighbor
    what = "kNN class" if by_class else "nearest neighbour"
    remedy = (
        "try int8.method=percentile or entropy, more calibration images, or accept it with tolerance.cosine and "
        "tolerance.knn"
        if tolerance.difference is None
        else "export another format, and report this network; tolerance.cosine and tolerance.knn accept it as it is"
    )
    # Negated, so that NaN is refused too.
    if not math.isfinite(agreement.largest_difference):
        problem = "its outputs are not finite numbers"
    elif not agreement.cosine_mean >= tolerance.cosine:
        problem = f"the mean cosine of its features is {agreement.cosine_mean:.5f}, below {tolerance.cosine:g}"
    elif not share >= least:
        problem = f"{share:.1%} of the images keep their {what}, fewer than {least:.1%}"
    elif agreement.same_class is not None and not agreement.same_class >= tolerance.same_knn_class:
        problem = (
            f"{agreement.same_class:.1%} of the images keep the class of the classifier, "
            f"fewer than {tolerance.same_knn_class:.1%}"
        )
    elif tolerance.difference is not None and not (
        agreement.largest_difference <= tolerance.difference * agreement.largest_output
    ):
        limit = tolerance.difference * agreement.largest_output
        problem = f"its outputs differ by up to {agreement.largest_difference:.2g}, more than {limit:.2g}"
    else:
        return
    raise ValueError(
        f"{name} disagrees with the PyTorch network on {agreement.num_images} images of data.check, and nothing was "
        f"written: {problem}; {remedy}."
    )


def _same_neighbor(before: Tensor, after: Tensor, nearest: Nearest) -> Tensor:
    """Whether the neighbours are the same, or as near: among equal images either is right."""
    old, new = nearest(before), nearest(after)
    unit = F.normalize(before, dim=1)
    behind = (unit * unit[old]).sum(1) - (unit * unit[new]).sum(1)
    return (old == new) | (behind <= _TIED)


def _share(values: Tensor) -> float:
    return float(values.double().mean())
