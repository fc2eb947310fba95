"""Which images to label: those whose like there are most of, by the features."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

NEAR = 0.2
"""Share of the median distance to the most alike image within which two count as one (benchmarks/results/labels.md)."""

_ASKED_AT_ONCE, _KNOWN_AT_ONCE, _ROUNDING = 16, 64, 1e-7
_EQUAL = 1 - 1e-5  # beyond is rounding
_LEAST_SAMPLE, _SAMPLE_A_CHOICE = 10_000, 5


@dataclass(frozen=True)
class Choice:
    """K images of N, the most useful first, so that the first ones are a choice of their own.

    Attributes:
        rows: ``[K]`` int64.
        represents: ``[K]`` int64, of how many images each is the one most alike among the K and those that had labels;
            it is one of them.
        duplicates: Of each the rows of its near-duplicates, none of which is chosen; the most alike first.
        similarity: ``[K]`` float32, mean cosine of all images to the one most alike of the first 1, 2, ..., K (and of
            those that had labels).
        near_duplicate: The cosine from which on two images were not both chosen.
    """

    rows: npt.NDArray[np.int64]
    represents: npt.NDArray[np.int64]
    duplicates: tuple[npt.NDArray[np.int64], ...]
    similarity: npt.NDArray[np.float32]
    near_duplicate: float


def choose_images(
    features: Tensor, num: int, *, labeled: npt.NDArray[np.int64] | None = None, near_duplicate: float | None = None
) -> Choice:
    """Choose images that cover all others: each is the one that raises most the mean similarity to the chosen ones.

    The greedy solution of facility location (Nemhauser, Wolsey & Fisher, Math. Programming 1978; as a choice of
    training images Wei, Iyer & Bilmes, ICML 2015), lazily. Deterministic. Of more than 10,000 images (or 5 for each
    chosen one) a random sample of that size, S, is what is chosen from and what gains are counted on. The cosines of
    10,000 images are kept (400 MB); with more they are computed again where they are needed. What each image
    represents and duplicates is counted over all.

    Args:
        features: ``[N, D]`` float32, N at least 2; compared by the cosine after their mean is subtracted.
        num: Images to choose; fewer are chosen where all others have labels or are near-duplicates.
        labeled: Rows that have labels: these and their near-duplicates are not chosen; what is like them gains little.
        near_duplicate: Cosine in (0, 1] from which on two images are not both chosen. None: a distance (1 - cosine) of
            a fifth of the median one to the image most alike, since what a cosine means differs between backbones. Of
            a set that is mostly copies this finds the closest ones only. Equal features always count as one.
    """
    unit = F.normalize(features - features.mean(0), dim=1)
    sample = _sample(len(unit), num)
    cosines = _Cosines(unit[sample])
    gains, to_next = cosines.gains_and_next()  # gains of the first one; no later gain is larger
    if near_duplicate is None:
        near_duplicate = 1 - NEAR * float((1 - to_next).clamp(min=0).median())
    near_duplicate = min(near_duplicate, _EQUAL)
    alike, nearest = torch.full((len(unit),), -1.0), torch.full((len(unit),), -1)
    known = torch.zeros(0, dtype=torch.int64) if labeled is None else torch.from_numpy(labeled)
    for start in range(0, len(known), _KNOWN_AT_ONCE):
        block = unit[known[start : start + _KNOWN_AT_ONCE]]
        alike = torch.maximum(alike, (unit @ block.T).max(1).values)
    free = alike < near_duplicate
    free[known] = False
    rows, duplicates, similarity = list[int](), list[npt.NDArray[np.int64]](), list[float]()
    while len(rows) < num and bool(free[sample].any()):
        gains[~free[sample]] = -torch.inf
        place = _most_gaining(cosines, gains, alike[sample])
        row = int(sample[place])
        to_all = unit @ unit[row]
        twins = ((to_all >= near_duplicate) & free).nonzero()[:, 0]
        twins = twins[to_all[twins].argsort(descending=True, stable=True)]
        free[twins] = free[row] = False
        nearest[to_all > alike] = len(rows)
        nearest[row] = len(rows)
        alike = torch.maximum(alike, to_all)
        rows.append(row)
        duplicates.append(twins[twins != row].numpy())
        similarity.append(float(alike.mean()))
    represents = torch.bincount(nearest[nearest >= 0], minlength=len(rows)).numpy()
    return Choice(
        np.array(rows, np.int64), represents, tuple(duplicates), np.array(similarity, np.float32), near_duplicate
    )


class _Cosines:
    """Cosines between S images, of features ``[S, D]`` of length 1; as many are kept as take no more than 400 MB."""

    def __init__(self, unit: Tensor) -> None:
        self._unit = unit
        self._kept = unit @ unit.T if len(unit) <= _LEAST_SAMPLE else None

    def of(self, rows: Tensor) -> Tensor:
        """``[R, S]`` of R images to all."""
        return self._unit[rows] @ self._unit.T if self._kept is None else self._kept[rows]

    def gains_and_next(self) -> tuple[Tensor, Tensor]:
        """Of each image the sum of (1 + cosine) to all, and the cosine to the most alike of the others."""
        length = len(self._unit)
        gains, to_next = torch.empty(length), torch.empty(length)
        for rows in torch.split(torch.arange(length), max(1, _LEAST_SAMPLE**2 // (16 * length))):
            block = self.of(rows)
            gains[rows] = block.sum(1) + length
            block[torch.arange(len(rows)), rows] = -1
            to_next[rows] = block.max(1).values
        return gains, to_next


def _most_gaining(cosines: _Cosines, gains: Tensor, alike: Tensor) -> int:
    """The place with the largest gain; ``gains`` ``[S]`` are earlier ones, brought up to date as far as needed."""
    while True:
        bounds, asked = gains.topk(min(_ASKED_AT_ONCE + 1, len(gains)))
        asked = asked[:_ASKED_AT_ONCE][bounds[:_ASKED_AT_ONCE] > -torch.inf]
        gains[asked] = cosines.of(asked).sub_(alike).clamp_(min=0).sum(1)
        best = int(asked[gains[asked].argmax()])
        # Gains only fall, so that none of the places that were not asked has a larger one than its bound.
        if len(asked) < _ASKED_AT_ONCE or gains[best] >= bounds[-1] - _ROUNDING * len(gains):
            return best


def _sample(num_images: int, num: int) -> Tensor:
    """Sorted rows from which is chosen."""
    most = max(_LEAST_SAMPLE, _SAMPLE_A_CHOICE * num)
    return torch.from_numpy(np.sort(np.random.default_rng(0).permutation(num_images)[:most]))
