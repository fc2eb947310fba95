"""Losses do not follow the network into half precision."""

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return x if x.dtype == torch.float64 else x.float()
