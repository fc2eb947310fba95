"""Backbone and head, applied to views of several sizes."""

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """A backbone and its projection head."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, *batches: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``[N, num_features]`` and head outputs ``[N, K]`` of several batches, one after the other.

        Each batch passes through the backbone by itself, with its own batch-norm statistics; the head
        sees all of them at once.
        """
        features = torch.cat([self.backbone(batch) for batch in batches])
        return features, self.head(features)
