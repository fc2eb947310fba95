"""A backbone without weights, fast and easy to check by hand."""

import torch
from torch import nn


class Pooled(nn.Module):
    """The mean of each channel in each quarter of the view; counts the images that it has seen."""

    head_hidden_size = 12

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.images_seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, 3, H, W]`` to ``[B, 12]``."""
        self.images_seen += len(x)
        return self.scale * nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)
