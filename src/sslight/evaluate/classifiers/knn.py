"""Weighted k-nearest-neighbor classification (Wu et al., CVPR 2018, section 3.4), as DINO and SSLight use it."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from sslight.evaluate.classifiers.metrics import label_answers

# Both bound the memory whatever the sizes of the sets: 128 MiB of float32 similarities at a time.
_BANK_BLOCK = 16384
_QUERY_BLOCK = 2048


def nearest_neighbors(
    train_features: Tensor, test_features: Tensor, *, k: int, leave_one_out: bool = False
) -> tuple[Tensor, Tensor]:
    """Cosine similarities ``[N, k]`` and rows ``[N, k]`` int64 of the k nearest training features of each test feature.

    The nearest comes first. The bank ``[M, D]`` is read once, a block at a time (it may be mapped from a disk, and lie
    elsewhere than the queries ``[N, D]``, on whose device the work is done), so that memory beyond the queries and the
    result is bounded. Both are normalized here. With ``leave_one_out`` the queries are the bank itself, row by row, and
    no image is its own neighbor. ValueError if ``k`` is larger than the bank, or the sets differ in size then.
    """
    candidates = len(train_features) - leave_one_out
    if not 1 <= k <= candidates:
        raise ValueError(f"k={k} neighbors are more than the {candidates} images: choose k from 1 to {candidates}.")
    if leave_one_out and len(test_features) != len(train_features):
        raise ValueError("leave_one_out needs the bank itself as queries, row by row.")
    queries = F.normalize(test_features, dim=1)
    best = queries.new_full((len(queries), k), -torch.inf)
    best_rows = torch.zeros(len(queries), k, dtype=torch.int64, device=queries.device)
    for first in range(0, len(train_features), _BANK_BLOCK):
        bank = F.normalize(train_features[first : first + _BANK_BLOCK].to(queries), dim=1)
        for start in range(0, len(queries), _QUERY_BLOCK):
            part = slice(start, start + _QUERY_BLOCK)
            similarity = queries[part] @ bank.T
            if leave_one_out:
                rows = torch.arange(start, start + len(similarity), device=queries.device)
                own = (rows >= first) & (rows < first + len(bank))
                similarity[own.nonzero()[:, 0], rows[own] - first] = -torch.inf
            near = similarity.topk(min(k, len(bank)), dim=1, sorted=False)
            values = torch.cat([best[part], near.values], dim=1)
            rows_of_bank = torch.cat([best_rows[part], near.indices + first], dim=1)
            best[part], order = values.topk(k, dim=1)
            best_rows[part] = rows_of_bank.gather(1, order)
    return best, best_rows


def neighbor_votes(similarity: Tensor, labels: Tensor, *, k: int, temperature: float, num_classes: int) -> Tensor:
    """Class scores ``[N, C]`` of the first k of sorted neighbors, from their similarities and labels ``[N, K]``."""
    votes = (similarity[:, :k] / temperature).exp()
    scores = votes.new_zeros(len(votes), num_classes)
    return scores.scatter_add_(1, labels[:, :k], votes)


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
    """Class scores ``[N, C]`` from the k nearest training features, each voting exp(cosine / temperature).

    Features, ``k`` and ``leave_one_out`` (no image votes for itself) are as for :func:`nearest_neighbors`, whose
    errors it has; ``train_labels`` are ``[M]`` integers in ``0 .. num_classes - 1``.
    """
    similarity, rows = nearest_neighbors(train_features, test_features, k=k, leave_one_out=leave_one_out)
    labels = train_labels.to(rows.device)[rows]
    return neighbor_votes(similarity, labels, k=k, temperature=temperature, num_classes=num_classes)


def knn_answers(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    ks: Sequence[int],
    temperature: float,
    num_classes: int,
) -> dict[int, Tensor]:
    """For each k, the ranks and the classes that score most (``[N, 3]``, :func:`label_answers`), in one search.

    Arguments as for :func:`knn_classify`; the scores of all images at once are never held.
    """
    similarity, rows = nearest_neighbors(train_features, test_features, k=max(ks))
    labels = train_labels.to(rows.device)[rows]
    wanted = test_labels.to(rows.device)
    parts = list(zip(*(torch.split(each, _QUERY_BLOCK) for each in (similarity, labels, wanted)), strict=True))

    def answers(k: int) -> Tensor:
        votes = partial(neighbor_votes, k=k, temperature=temperature, num_classes=num_classes)
        return torch.cat([label_answers(votes(near, voters), right) for near, voters, right in parts])

    return {k: answers(k) for k in ks}
