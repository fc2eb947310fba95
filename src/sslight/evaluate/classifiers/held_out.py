"""The part of a training set by which something is chosen."""

import numpy as np
import numpy.typing as npt

_MOST = 10_000


def draw_held_out(length: int, share: float, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sorted rows that are held out, and all others: ``share`` of ``length`` rows, at least 1 and at most 10,000."""
    order = np.random.default_rng(seed).permutation(length)
    number = min(max(1, round(share * length)), _MOST, length - 1)
    return np.sort(order[:number]), np.sort(order[number:])
