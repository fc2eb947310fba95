"""A term that spreads features."""

import torch
from torch import Tensor

from sslight.methods.numerics import unit_rows


def koleo_loss(features: Tensor) -> Tensor:
    """Mean of -ln of each feature's distance to its nearest, on the unit sphere: small if they spread over all of it.

    Sablayrolles et al., ICLR 2019; in DINOv2 (Oquab et al., 2023), which adds it for each global view. ``features [B,
    D]``; the nearest is sought among those that this process computes at once (with ``accumulate`` each part by
    itself), on a GPU in TF32 where the program takes it. No gradient flows through the choice of the nearest.
    """
    unit = unit_rows(features)
    with torch.autocast(features.device.type, enabled=False):
        nearest = (unit.detach() @ unit.detach().T).fill_diagonal_(-1.0).argmax(1)
    distances = torch.linalg.vector_norm(unit - unit[nearest], dim=1)
    spread: Tensor = (distances + 1e-8).log().mean()
    return -spread
