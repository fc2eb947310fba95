"""Logistic regression on fixed features: the fast form of the linear protocol, and where a new layer starts."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MOST_HELD_OUT = 10_000
_L2_STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # from smooth to free: each fit starts from the one before
_BLOCK = 1 << 14
_TRIAL_ITERATIONS, _ITERATIONS = 30, 100
_WORSE_IN_A_ROW = 2


def draw_held_out(length: int, share: float, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sorted rows that are held out, and all others: ``share`` of ``length`` rows, at least 1 and at most 10,000."""
    order = np.random.default_rng(seed).permutation(length)
    number = min(max(1, round(share * length)), _MOST_HELD_OUT, length - 1)
    return np.sort(order[:number]), np.sort(order[number:])


@dataclass(frozen=True)
class LogisticRegression:
    """A fitted classifier of standardized features.

    ``weight [C, D]``, ``bias [C]``; ``mean`` and ``std`` ``[D]`` of the training features; ``l2``: the
    strength of the penalty l2 / 2 · ‖weight‖² beside the mean cross-entropy (scikit-learn's C is 1 / (l2 · M)).
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor
    l2: float

    def logits(self, features: Tensor) -> Tensor:
        """``[N, D]`` → ``[N, C]``."""
        parts = [((part - self.mean) / self.std) @ self.weight.T + self.bias for part in torch.split(features, _BLOCK)]
        return torch.cat(parts)

    @torch.no_grad()
    def fill(self, layer: nn.Linear) -> None:
        """Let a linear layer give the same logits of the same features."""
        layer.weight.copy_(self.weight / self.std)
        layer.bias.copy_(self.bias - layer.weight @ self.mean)


def fit_logistic_regression(
    features: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    l2: float | None = None,
    held_out_share: float = 0.1,
    seed: int = 0,
    weights: Tensor | None = None,
) -> LogisticRegression:
    """Fit by L-BFGS to features standardized with their own mean and deviation.

    Args:
        features: ``[M, D]``, M at least 2; read a block at a time. What is not held out is copied once for the choice.
        labels: ``[M]`` integers in ``0 .. num_classes - 1``; or ``[M, C]`` of 0 and 1, each column a question of its
            own.
        l2: Strength of the penalty; None chooses it from 1e-5 to 1 on a share ``held_out_share`` of these features,
            drawn with ``seed`` (never on others), and then fits to all of them.
        weights: ``[C]``, of images by class, or of the ones among the zeros of each column.
    """
    mean, std = features.mean(0), features.std(0)
    std = torch.where(std > 1e-6 * std.max(), std, torch.ones_like(std))  # constant features carry nothing
    start = LogisticRegression(
        features.new_zeros(num_classes, len(mean)), features.new_zeros(num_classes), mean, std, 0
    )
    if l2 is not None:
        return _fit(features, labels, start, l2, _ITERATIONS, weights)
    held_out, kept = (
        torch.from_numpy(part).to(features.device) for part in draw_held_out(len(features), held_out_share, seed)
    )
    kept_features, kept_labels, wanted = features[kept], labels[kept], labels[held_out]
    fitted = start
    tried: dict[float, tuple[float, LogisticRegression]] = {}
    for strength in _L2_STRENGTHS:
        fitted = _fit(kept_features, kept_labels, fitted, strength, _TRIAL_ITERATIONS, weights)
        logits = fitted.logits(features[held_out])
        tried[strength] = _score(logits, wanted, weights), fitted
        best = max(tried, key=lambda strength: tried[strength][0])
        if list(tried).index(best) + _WORSE_IN_A_ROW < len(tried):
            break  # the weaker the penalty, the longer the fit
    return _fit(features, labels, tried[best][1], best, _ITERATIONS, weights)


def _score(logits: Tensor, labels: Tensor, weights: Tensor | None) -> float:
    """The larger the better: how many images are right (each with the weight of its class), or less the loss."""
    if labels.ndim == 2:
        return -float(_loss(logits, labels, weights))
    right = logits.argmax(1) == labels
    return float((right if weights is None else right * weights[labels]).double().mean())


def _loss(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Cross-entropy, the sum over images."""
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, weights, reduction="sum")
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), pos_weight=weights, reduction="sum")


def _fit(
    features: Tensor, labels: Tensor, start: LogisticRegression, l2: float, iterations: int, weights: Tensor | None
) -> LogisticRegression:
    weight, bias = start.weight.clone().requires_grad_(), start.bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=iterations, tolerance_grad=1e-5, tolerance_change=1e-6, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = 0.5 * l2 * weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        total = total.detach()
        for part, wanted in zip(torch.split(features, _BLOCK), torch.split(labels, _BLOCK), strict=True):
            logits = ((part - start.mean) / start.std) @ weight.T + bias
            loss = _loss(logits, wanted, weights) / len(features)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return LogisticRegression(weight.detach(), bias.detach(), start.mean, start.std, l2)
