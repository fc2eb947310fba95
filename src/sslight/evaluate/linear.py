"""Multinomial logistic regression on fixed features: the quick form of the linear protocol."""

import torch
import torch.nn.functional as F
from torch import Tensor

_L2_STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_HELD_OUT_SHARE = 0.1


def fit_logistic_regression(
    train_features: Tensor, train_labels: Tensor, test_features: Tensor, *, num_classes: int, seed: int = 0
) -> Tensor:
    """Class scores of the test features under a logistic regression fitted to the training features.

    Features are standardised with the training set's mean and deviation. The L2 strength is chosen on
    a tenth of the *training* set held out for it; the model is then fitted to all of it by L-BFGS.

    Args:
        train_features: ``[M, D]``, M at least 2.
        train_labels: ``[M]`` integers in ``0 .. num_classes - 1``.
        test_features: ``[N, D]``.
        num_classes: Number of classes C.
        seed: Seed of the draw of the held-out part.

    Returns:
        Logits ``[N, C]``.
    """
    mean, std = train_features.mean(0), train_features.std(0)
    std = torch.where(std > 1e-6 * std.max(), std, torch.ones_like(std))  # constant features carry nothing
    train, test = (train_features - mean) / std, (test_features - mean) / std
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).to(train.device)
    num_held_out = max(1, round(_HELD_OUT_SHARE * len(train)))
    held_out, kept = order[:num_held_out], order[num_held_out:]

    def accuracy(l2: float) -> float:
        weight, bias = _fit(train[kept], train_labels[kept], num_classes, l2)
        predicted = (train[held_out] @ weight.T + bias).argmax(1)
        return float((predicted == train_labels[held_out]).float().mean())

    best = max(_L2_STRENGTHS, key=accuracy)
    weight, bias = _fit(train, train_labels, num_classes, best)
    return test @ weight.T + bias


def _fit(features: Tensor, labels: Tensor, num_classes: int, l2: float) -> tuple[Tensor, Tensor]:
    weight = features.new_zeros(num_classes, features.shape[1], requires_grad=True)
    bias = features.new_zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(features @ weight.T + bias, labels) + 0.5 * l2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
