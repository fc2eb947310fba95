"""Gradient clipping as in DINO: tensor by tensor."""

from collections.abc import Iterable

import torch
from torch import nn


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """Scale down, in place, each parameter's gradient whose L2 norm exceeds ``max_norm``.

    Each by itself, not all together: its factor is max_norm / (norm + 1e-6) where that is below 1
    (facebookresearch/dino, ``clip_gradients``). The host does not wait for the device.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return
    norms = torch.stack(torch._foreach_norm(grads))
    factors = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(grads, list(factors.unbind()))
