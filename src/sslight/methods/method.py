"""What every self-supervised method gives to the training loop."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn


class StepValues(NamedTuple):  # which Fabric passes through a wrapped module unchanged
    """The scheduled values of one optimizer step; values that the method does not use are left out.

    ``momentum``: share of the teacher (DINO) or key network (MoCo) kept, 0 to 1; ``teacher_temp``: temperature of the
    teacher's softmax (DINO); ``freeze_last_layer``: whether the last layer of the head (DINO) or the prototypes (SwAV)
    stay unchanged; ``use_queue``: whether the queue (SwAV) is filled and, once full, used.
    """

    momentum: float | None = None
    teacher_temp: float | None = None
    freeze_last_layer: bool = False
    use_queue: bool = False


@dataclass(frozen=True)
class StepOutput:
    """What a forward pass gives.

    ``loss``: scalar to minimize, float32 (float64 from float64 networks); ``scalars``: indicators to
    show, detached scalars on the device; ``features``: ``[B, num_features]``, detached, of the view
    that probes look at, in the precision of the loss.
    """

    loss: Tensor
    scalars: dict[str, Tensor]
    features: Tensor


class Method(nn.Module, ABC):
    """A self-supervised method: its networks, its loss, and what it keeps between steps.

    One optimizer step is ``begin_step``, then ``forward`` and backward for each part of the batch (one part unless
    gradients are accumulated), removal of the gradients of ``frozen_parameters``, the optimizer, and ``end_step``. All
    learning goes through ``forward``, which DDP wraps; the other members are called on the method itself.
    ``state_dict()`` is the whole state.
    """

    @abstractmethod
    def begin_step(self, values: StepValues) -> None:
        """Called before the first forward pass of a step."""

    @abstractmethod
    def forward(self, global_views: Tensor, local_views: Tensor | None, values: StepValues) -> StepOutput:
        """The loss of one part of the batch.

        Args:
            global_views: Normalized ``[G·B, 3, S, S]``, views-major: all images of view 0, then of view 1.
            local_views: ``[L·B, 3, s, s]`` in the same order, or None without local views.
            values: Of this step.
        """

    @abstractmethod
    def end_step(self, values: StepValues) -> None:
        """Called after the optimizer's step: moving averages and queues."""

    def frozen_parameters(self, values: StepValues) -> list[nn.Parameter]:
        """Parameters whose gradients are removed (not zeroed) before the optimizer's step; none by default."""
        return []

    @property
    @abstractmethod
    def networks(self) -> Mapping[str, nn.Module]:
        """The backbones, the one to export first; ``state_dict()`` has them under ``{name}.backbone``."""

    @property
    def backbone(self) -> nn.Module:
        """The backbone to measure and export."""
        return next(iter(self.networks.values()))


def images_per_view(global_views: Tensor, local_views: Tensor | None, *, num_global: int, num_local: int) -> int:
    """Images B of ``G·B`` global and ``L·B`` local views."""
    batch = len(global_views) // num_global
    assert len(global_views) == num_global * batch
    assert (0 if local_views is None else len(local_views)) == num_local * batch
    return batch
