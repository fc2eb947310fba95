"""Weighted k-nearest-neighbour classification (Wu et al., CVPR 2018, section 3.4), as DINO and SSLight use it."""

import torch
import torch.nn.functional as F
from torch import Tensor

_SIMILARITIES_AT_ONCE = 2**26  # 256 MiB of float32 bounds the memory whatever the size of the bank


def knn_classify(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    *,
    k: int,
    temperature: float,
    num_classes: int,
    leave_one_out: bool = False,
) -> Tensor:
    """Class scores from the k nearest training features, each voting exp(cosine / temperature).

    Args:
        train_features: ``[M, D]``, the bank; normalised here.
        train_labels: ``[M]`` integers in ``0 .. num_classes - 1``.
        test_features: ``[N, D]``, the queries; normalised here.
        k: Neighbours that vote; at most ``M`` (``M - 1`` with ``leave_one_out``).
        temperature: Temperature of the votes, in units of cosine similarity.
        num_classes: Number of classes C.
        leave_one_out: The queries are the bank itself, row by row; no image votes for itself.

    Returns:
        Scores ``[N, C]``; the largest is the predicted class.

    Raises:
        ValueError: ``k`` is larger than the bank, or ``leave_one_out`` with sets of different size.
    """
    candidates = len(train_features) - leave_one_out
    if not 1 <= k <= candidates:
        raise ValueError(f"k={k} neighbours cannot be drawn from {candidates} images: choose k from 1 to {candidates}.")
    if leave_one_out and len(test_features) != len(train_features):
        raise ValueError("leave_one_out needs the bank itself as queries, row by row.")
    bank = F.normalize(train_features, dim=1)
    queries = F.normalize(test_features, dim=1)
    block = max(1, _SIMILARITIES_AT_ONCE // len(bank))
    scores = torch.zeros(len(queries), num_classes, dtype=bank.dtype, device=bank.device)
    for start in range(0, len(queries), block):
        similarity = queries[start : start + block] @ bank.T
        if leave_one_out:
            rows = torch.arange(len(similarity), device=bank.device)
            similarity[rows, start + rows] = -torch.inf
        nearest = similarity.topk(k, dim=1)
        votes = (nearest.values / temperature).exp()
        scores[start : start + block].scatter_add_(1, train_labels[nearest.indices], votes)
    return scores
