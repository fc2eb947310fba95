"""A backbone with its head, applied to views of several sizes, and a second one that follows the first."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

Head_co = TypeVar("Head_co", bound=nn.Module, covariant=True)


class Network(nn.Module, Generic[Head_co]):
    """A backbone ``[B, 3, H, W]`` → ``[B, num_features]`` and its projection head."""

    def __init__(self, backbone: nn.Module, head: Head_co) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self._compiled: Callable[[Tensor], Tensor] | None = None

    def forward(self, *batches: Tensor | None) -> tuple[Tensor, Any]:
        """Features ``[N, num_features]`` of several batches, one after the other, and what the head makes of them.

        Each batch passes through the backbone by itself, with its own batch-norm statistics; the head
        sees all of them at once. A batch that is None is left out.
        """
        backbone = self._compiled or self.backbone
        features = torch.cat([backbone(batch) for batch in batches if batch is not None])
        return features, self.head(features)

    def compile_backbone(self, mode: str | None) -> None:
        """Compile the backbone for :meth:`forward` only: one graph per batch shape, and none for measurements."""
        self._compiled = torch.compile(self.backbone.forward, dynamic=False, mode=mode)

    def start_as(self, other: "Network[Head_co]") -> None:
        """Copy the state of another network; from then on, change only by :meth:`follow`."""
        self.load_state_dict(other.state_dict())
        self.requires_grad_(False)

    @torch.no_grad()
    def follow(self, other: "Network[Head_co]", *, momentum: float | None) -> None:
        """Move the parameters towards those of another network: an exponential mean that keeps ``momentum``."""
        assert momentum is not None
        own: list[Tensor] = list(self.parameters())
        new: list[Tensor] = list(other.parameters())
        torch._foreach_lerp_(own, new, 1.0 - momentum)
