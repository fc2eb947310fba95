"""The precision of losses and heads: never half; on a CPU with its faster matrix product."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sslight.backbones import linear

__all__ = ["full_precision", "linear", "unit_rows"]


def full_precision(x: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return x if x.dtype == torch.float64 else x.float()


def unit_rows(x: Tensor) -> Tensor:
    """The rows of ``[N, D]`` at length 1, in full precision."""
    with torch.autocast(x.device.type, enabled=False):
        return F.normalize(full_precision(x), dim=1)
