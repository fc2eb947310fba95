"""Muon for 1×1 convolutions, LARS for the rest."""

from typing import Any

from torch import Tensor

from sslight.optim.groups import ParameterGroup
from sslight.optim.lars import LARS

_WIDEST = 512
_REACH = 3.0  # times eta: the median tensor of a run with LARS moved by 2.4 · eta


class Muon(LARS):
    """LARS, but 1×1 convolutions move along their momentum made orthogonal (Muon, Jordan et al., 2024).

    For such a kernel p, as a matrix, with gradient g: μ ← momentum · μ + g; u = :func:`orthogonal` (g + momentum · μ);
    p ← p - lr · 3 · eta · ‖p‖ · u / ‖u‖. It has no weight decay. Kernels of more than 512 input and output channels
    are left to LARS, because the iteration would take longer than all the rest.

    Raises:
        ValueError: there is no such kernel, or a value is out of LARS's range.
    """

    def __init__(self, params: list[ParameterGroup], lr: float, momentum: float = 0.9, eta: float = 0.001) -> None:
        super().__init__(params, lr=lr, momentum=momentum, eta=eta)
        if not any(_is_turned(p) for group in self.param_groups for p in group["params"]):
            raise ValueError(
                "optim.name=muon is for networks with 1×1 convolutions of up to 512 channels, which this one lacks: "
                "set optim.name to lars or adamw."
            )

    def _step_group(self, group: dict[str, Any]) -> None:
        super()._step_group(group | {"params": [p for p in group["params"] if not _is_turned(p)]})
        for p in filter(_is_turned, group["params"]):
            if p.grad is None:
                continue
            momentum = self._momentum_buffer(p).mul_(group["momentum"]).add_(p.grad)
            update = orthogonal((p.grad + group["momentum"] * momentum).flatten(1)).view_as(p)
            p.sub_(update * (group["lr"] * _REACH * group["eta"] * p.norm() / update.norm().clamp(min=1e-7)))


def _is_turned(p: Tensor) -> bool:
    return p.ndim == 4 and p.shape[2:] == (1, 1) and 1 < min(p.shape[:2]) <= _WIDEST


def orthogonal(matrix: Tensor) -> Tensor:
    """About U·Vᵀ of ``matrix`` = U·S·Vᵀ: five steps of the Newton–Schulz iteration of Muon (Jordan et al., 2024).

    They bring the singular values, but very small ones, to between 0.7 and 1.2. In the matrix's own precision:
    PyTorch's Muon takes bfloat16, which a CPU without instructions for it emulates in five times as long.
    """
    wide = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    x: Tensor = wide / wide.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return x if wide is matrix else x.T
