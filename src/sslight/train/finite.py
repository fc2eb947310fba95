"""Losses and gradients that are not finite, detected at their step."""

import math
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sslight.train.machine.distributed import gathered


@dataclass(frozen=True)
class NotFinite:
    """The step (counted from 0) at which the loss or the gradient was not a finite number, and its images."""

    step: int
    what: str
    indices: list[int]


@dataclass(frozen=True)
class _Noted:
    step: int
    indices: list[Tensor]
    figures: Tensor
    copied: torch.cuda.Event | None


class FiniteWatch:
    """Checks the loss and the gradient norm of every step; on a GPU one step later, so that the host does not wait.

    With several processes only the gradient is checked: it is the same in all of them, and a loss that is not finite
    makes it so. Scaled gradients (``precision=16``) may overflow, which their scaler handles: then only the loss
    counts, and only in a single process.
    """

    def __init__(self, device: torch.device, *, world_size: int, scaled: bool) -> None:
        self._on_gpu = device.type == "cuda"
        self._look_at_loss = world_size == 1
        self._look_at_gradient = not scaled
        self._noted: deque[_Noted] = deque()

    def note(self, step: int, *, loss: Tensor, grad_norm: Tensor, indices: list[Tensor]) -> None:
        """Remember ``loss`` and ``grad_norm`` (scalars on the device) and the image ``indices`` of a step."""
        figures = torch.stack([loss.detach().float(), grad_norm.float()])
        copied = None
        if self._on_gpu:
            on_host = torch.empty(2, pin_memory=True)
            on_host.copy_(figures, non_blocking=True)
            copied, figures = torch.cuda.Event(), on_host  # type: ignore[no-untyped-call]
            copied.record()
        self._noted.append(_Noted(step, [part.clone() for part in indices], figures, copied))

    def found(self, *, now: bool) -> NotFinite | None:
        """The first step that was not finite; unless ``now``, a GPU's newest step is left for the next call.

        All processes must call this at the same steps.
        """
        while len(self._noted) > (0 if now or not self._on_gpu else 1):
            noted = self._noted.popleft()
            if noted.copied is not None:
                noted.copied.synchronize()
            loss, grad_norm = noted.figures.tolist()
            if self._look_at_loss and not math.isfinite(loss):
                what = f"the loss became {loss}"
            elif self._look_at_gradient and not math.isfinite(grad_norm):
                what = f"the gradient became {grad_norm}"
            else:
                continue
            self._noted.clear()
            everyone = gathered(torch.cat(noted.indices).tolist())
            return NotFinite(noted.step, what, [index for own in everyone for index in own])
        return None


def all_finite(module: nn.Module) -> bool:
    """Whether all weights and buffers of ``module`` are finite; the host waits for the device."""
    saved = [value for value in module.state_dict().values() if isinstance(value, Tensor)]
    tensors = [value for value in saved if value.is_floating_point() and value.numel()]
    norms = torch._foreach_norm(tensors)  # overflows, too, where weights are absurdly large
    return bool(torch.stack([norm.float() for norm in norms]).isfinite().all())
