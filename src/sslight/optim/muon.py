"""Muon for 1×1 convolutions (Jordan et al., 2024), as groups of :class:`~sslight.optim.LARS`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sslight.optim.groups import ParameterGroup

_WIDEST = 512  # one kernel of 1280 × 1280 takes a CPU five times as long as all 34 of MobileNetV2 together
_REACH = 3.0  # times eta; LARS moved the median kernel of a run by 2.4 · eta a step, at a momentum of 0.9


def muon_groups(groups: Sequence[ParameterGroup]) -> list[ParameterGroup]:
    """The groups with their 1×1 kernels apart, in groups with the key ``orthogonal`` (see :func:`muon_step`).

    Kernels with more than 512 input and more than 512 output channels stay where they are, and so do those with one
    channel. A grouped convolution counts as one matrix.

    Raises:
        ValueError: there is no such kernel.
    """
    parted: list[ParameterGroup] = []
    for group in groups:
        turned = [p for p in group["params"] if _is_turned(p)]
        rest = [p for p in group["params"] if not _is_turned(p)]
        parted += [group | {"params": rest}] if rest else []
        parted += [group | {"name": f"{group['name']}_1x1", "params": turned, "orthogonal": True}] if turned else []
    if not any("orthogonal" in group for group in parted):
        raise ValueError("the network has no convolution of 1×1 with 2 to 512 input or output channels.")
    return parted


def _is_turned(p: Tensor) -> bool:
    return p.ndim == 4 and p.shape[2:] == (1, 1) and 1 < min(p.shape[:2]) <= _WIDEST


def muon_step(
    params: list[Tensor],
    grads: list[Tensor],
    buffers: list[Tensor],
    *,
    lr: float,
    momentum: float,
    eta: float,
) -> None:
    """Move kernels ``[O, I, 1, 1]`` along their momentum made orthogonal, in place.

    For a kernel p, as a matrix, with gradient g and momentum buffer μ: μ ← momentum · μ + g;
    u = :func:`orthogonal` (g + momentum · μ); p ← p - lr · 3 · eta · ‖p‖ · u / ‖u‖. A kernel of zeros moves as one with
    the norm 1. There is no weight decay. The direction is Muon's. The length of a step is ours, after LARS; Muon's
    depends on the shape of the matrix alone. The host never waits for the device.
    """
    torch._foreach_mul_(buffers, momentum)
    torch._foreach_add_(buffers, grads)
    ahead = torch._foreach_add(grads, buffers, alpha=momentum)
    norms = torch.stack(torch._foreach_norm(params))
    reach = lr * _REACH * eta * torch.where(norms > 0, norms, 1.0)
    of_shape: dict[torch.Size, list[int]] = {}
    for position, p in enumerate(params):
        of_shape.setdefault(p.shape, []).append(position)
    for alike in of_shape.values():
        updates = orthogonal(torch.stack([ahead[position].flatten(1) for position in alike]))
        lengths = torch.linalg.vector_norm(updates, dim=(1, 2)).clamp(min=1e-7)
        for position, update, length in zip(alike, updates, lengths, strict=True):
            params[position].sub_(update[..., None, None] * (reach[position] / length))


def orthogonal(matrices: Tensor) -> Tensor:
    """About U·Vᵀ of each of ``matrices [..., R, C]`` = U·S·Vᵀ, by five steps of Muon's Newton–Schulz iteration.

    They bring singular values above 0.002 of a matrix's norm to between 0.68 and 1.2. Computed in the type of the
    input, on a GPU with TF32 products where the program takes them. PyTorch's Muon takes bfloat16, which a CPU without
    instructions for it emulates in five times as long.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if tall else matrices
    x = x / torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x
