"""Losses over pairs of views, in two sets: global–global and global–local (SSLight)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PairMeans:
    """Mean losses, scalars, of the two sets of pairs.

    Attributes:
        global_mean: Over the global–global pairs.
        local_mean: Over the global–local pairs; None without local views.
        global_share: Global–global pairs as a share of all.
    """

    global_mean: Tensor
    local_mean: Tensor | None
    global_share: float

    def weighted(self, global_pair_weight: float | None) -> Tensor:
        """The loss w · global + (1 - w) · local (SSLight); None is the plain mean over all pairs.

        Without local views w has no effect.
        """
        if self.local_mean is None:
            return self.global_mean
        weight = self.global_share if global_pair_weight is None else global_pair_weight
        return torch.lerp(self.local_mean, self.global_mean, weight)

    @property
    def scalars(self) -> dict[str, Tensor]:
        """The means to show, detached."""
        terms = {"global_loss": self.global_mean, "local_loss": self.local_mean}
        return {name: term.detach() for name, term in terms.items() if term is not None}


def cross_view_means(log_probs: Tensor, targets: Tensor) -> PairMeans:
    """Mean cross-entropy -Σₖ q log p of each set of pairs (target view g, predicting view v ≠ g), and over the batch.

    Without a loop over pairs: summed over targets first, so nothing larger than ``log_probs`` is kept.

    Args:
        log_probs: log p ``[V, B, K]``, global views first.
        targets: q ``[G, B, K]`` of the global views, rows sum to 1; no gradient flows into them.
    """
    num_global, batch, _ = targets.shape
    num_local = len(log_probs) - num_global
    assert num_global >= 2
    assert num_local >= 0
    targets = targets.detach()
    target_sum = targets.sum(0)
    global_log_probs, local_log_probs = torch.split(log_probs, [num_global, num_local])
    global_mean = -(global_log_probs * (target_sum - targets)).sum() / (num_global * (num_global - 1) * batch)
    local_mean = None
    if num_local:
        local_mean = -(local_log_probs.sum(0) * target_sum).sum() / (num_global * num_local * batch)
    return PairMeans(global_mean, local_mean, (num_global - 1) / (num_global - 1 + num_local))
