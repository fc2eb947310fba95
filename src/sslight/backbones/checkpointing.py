"""Gradient checkpointing: less memory, the same result (Chen et al., 2016)."""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def checkpoint_gradients(backbone: nn.Module, name: str) -> None:
    """Make a timm network recompute its activations in the backward pass instead of keeping them, in place.

    Raises ValueError if the network, called ``name`` by the user, has no such mode.
    """
    try:
        backbone.set_grad_checkpointing()  # type: ignore[operator]
    except (AttributeError, AssertionError):
        raise ValueError(
            f"grad_checkpointing=true, but backbone={name} has no such mode in timm: "
            "set accumulate to 2 or more instead, or leave it out."
        ) from None


def count_statistics_once(backbone: nn.Module) -> None:
    """Keep the second forward pass from updating the running statistics of batch norms again.

    Call it after any conversion to synchronized batch norms, which would undo it.
    """
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):
            _update_statistics_once(module)


def _update_statistics_once(norm: _BatchNorm) -> None:
    momentum = norm.momentum

    def before(module: nn.Module, _: Any) -> None:
        again = torch._C._current_graph_task_id() != -1  # a backward pass is under way
        norm.momentum = 0.0 if again else momentum
        if again and norm.num_batches_tracked is not None:
            norm.num_batches_tracked -= 1

    norm.register_forward_pre_hook(before)
