"""Losses over pairs of views, in two sets: global–global and global–local (SSLight)."""

import torch
from torch import Tensor


def cross_view_means(log_probs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
    """Mean cross-entropy -Σₖ q log p of each set of pairs (target view g, predicting view v ≠ g).

    Without a loop over pairs: summed over targets first, so nothing larger than ``log_probs`` is kept.

    Args:
        log_probs: log p ``[V, B, K]``, global views first.
        targets: q ``[G, B, K]`` of the global views, rows sum to 1; no gradient flows into them.

    Returns:
        The mean over the G (G - 1) global–global pairs and that over the G (V - G) global–local pairs
        (None without local views), each also over the batch.
    """
    num_global, batch, _ = targets.shape
    num_local = len(log_probs) - num_global
    assert num_global >= 2
    assert num_local >= 0
    targets = targets.detach()
    target_sum = targets.sum(0)
    global_log_probs, local_log_probs = torch.split(log_probs, [num_global, num_local])
    global_mean = -(global_log_probs * (target_sum - targets)).sum() / (num_global * (num_global - 1) * batch)
    if num_local == 0:
        return global_mean, None
    local_mean = -(local_log_probs.sum(0) * target_sum).sum() / (num_global * num_local * batch)
    return global_mean, local_mean


def combine_pair_means(
    global_mean: Tensor,
    local_mean: Tensor | None,
    *,
    num_global: int,
    num_local: int,
    global_pair_weight: float | None,
) -> Tensor:
    """The loss from the means of the two sets of pairs.

    ``global_pair_weight`` w gives w · global + (1 - w) · local (SSLight); None is the plain
    mean over all pairs: each global view meets G - 1 global and L local ones, so w = (G - 1) / (G - 1 + L).
    Without local views w has no effect.
    """
    if local_mean is None:
        return global_mean
    if global_pair_weight is None:
        global_pair_weight = (num_global - 1) / (num_global - 1 + num_local)
    return torch.lerp(local_mean, global_mean, global_pair_weight)
