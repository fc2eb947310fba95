"""Pairs of views: vectorised against a loop, and the two ways of weighting them."""

import pytest
import torch
from torch import Tensor

from sslight.methods.pairs import PairMeans, cross_view_means


def naive_means(log_probs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
    global_pairs: list[Tensor] = []
    local_pairs: list[Tensor] = []
    for g in range(len(targets)):
        for v in range(len(log_probs)):
            if v != g:
                pair = -(targets[g] * log_probs[v]).sum(-1).mean()
                (global_pairs if v < len(targets) else local_pairs).append(pair)
    local_mean = torch.stack(local_pairs).mean() if local_pairs else None
    return torch.stack(global_pairs).mean(), local_mean


@pytest.mark.parametrize(("num_global", "num_local"), [(2, 0), (2, 1), (2, 6), (3, 2), (4, 0)])
def test_means_and_gradients_are_those_of_a_loop_over_pairs(num_global: int, num_local: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(num_global + num_local, 5, 7, dtype=torch.float64, requires_grad=True)
    targets = torch.randn(num_global, 5, 7, dtype=torch.float64).softmax(-1)
    gradients = []
    ours = cross_view_means(logits.log_softmax(-1), targets)
    for global_mean, local_mean in (
        (ours.global_mean, ours.local_mean),
        naive_means(logits.log_softmax(-1), targets),
    ):
        assert (local_mean is None) == (num_local == 0)
        total = global_mean if local_mean is None else 3 * global_mean + 5 * local_mean
        (gradient,) = torch.autograd.grad(total, logits)
        gradients.append((total.detach(), gradient))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-14)


def test_without_a_weight_every_pair_counts_the_same() -> None:
    logits = torch.randn(3 + 4, 2, 6, dtype=torch.float64).log_softmax(-1)
    targets = torch.randn(3, 2, 6, dtype=torch.float64).softmax(-1)
    pairs = [-(targets[g] * logits[v]).sum(-1).mean() for g in range(3) for v in range(7) if v != g]
    loss = cross_view_means(logits, targets).weighted(None)
    torch.testing.assert_close(loss, torch.stack(pairs).mean(), rtol=1e-12, atol=0.0)


def test_the_papers_baseline_weights_are_the_plain_mean() -> None:
    means = torch.tensor(7.0), torch.tensor(14.0)
    for num_local, weight in [(6, 1 / 7), (10, 1 / 11)]:
        log_probs, targets = torch.zeros(2 + num_local, 1, 3), torch.ones(2, 1, 3) / 3
        share = cross_view_means(log_probs, targets).global_share
        plain, weighted = (PairMeans(*means, share).weighted(w) for w in (None, weight))
        assert float(plain) == pytest.approx(float(weighted), rel=1e-6)
        assert float(plain) == pytest.approx(7 * weight + 14 * (1 - weight), rel=1e-6)


def test_without_local_views_the_weight_has_no_effect() -> None:
    mean = torch.tensor(2.5)
    assert PairMeans(mean, None, 1.0).weighted(0.4) is mean
