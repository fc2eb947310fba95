"""LARS: one learning rate per tensor."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from sslight.optim.muon import muon_step


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling with momentum (You et al., 2017, "Large batch training").

    For each tensor p with gradient g: d = g + weight_decay · p; then, unless its group is excluded and
    where both norms are positive, d is multiplied by eta · ‖p‖ / ‖d‖; μ ← momentum · μ + d;
    p ← p - lr · μ. A tensor without gradient is left alone, its momentum too.

    The group key ``lars_exclude`` (default False) turns the adaptation off, which biases and norm
    parameters need; with ``orthogonal`` (default False) the step is :func:`~sslight.optim.muon.muon_step`.
    State: ``momentum_buffer``, with the shape of the tensor. The host never waits for the device.

    Args:
        params: Tensors or groups, as for any PyTorch optimizer.
        lr: Learning rate.
        momentum: Share of μ kept a step, in [0, 1).
        weight_decay: Added to the gradient as weight_decay · p.
        eta: Trust coefficient.

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 0.001,
    ) -> None:
        if lr < 0 or weight_decay < 0 or eta <= 0:
            given = f"lr={lr:g}, weight_decay={weight_decay:g}, eta={eta:g}"
            raise ValueError(f"{given}: LARS needs lr and weight_decay of at least 0 and a positive eta.")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum:g} is outside [0, 1): set it to 0.9.")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "eta": eta,
            "lars_exclude": False,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step with the gradients at hand; returns the closure's loss, if there is one."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        params: list[Tensor] = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        grads = [p.grad for p in params if p.grad is not None]
        buffers = [self._momentum_buffer(p) for p in params]
        if group.get("orthogonal"):
            muon_step(params, grads, buffers, lr=group["lr"], momentum=group["momentum"], eta=group["eta"])
            return
        updates = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
        if not group["lars_exclude"]:
            torch._foreach_mul_(updates, _trust_ratios(params, updates, group["eta"]))
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, updates)
        torch._foreach_add_(params, buffers, alpha=-group["lr"])

    def _momentum_buffer(self, param: Tensor) -> Tensor:
        state = self.state[param]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(param, memory_format=torch.preserve_format)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def _trust_ratios(params: list[Tensor], updates: list[Tensor], eta: float) -> list[Tensor]:
    """The ratio eta · ‖p‖ / ‖d‖ of each tensor, 1 where a norm is 0; scalars on the device."""
    param_norms = torch.stack(torch._foreach_norm(params))
    update_norms = torch.stack(torch._foreach_norm(updates))
    adapted = (param_norms > 0) & (update_norms > 0)
    return list(torch.where(adapted, eta * param_norms / update_norms, 1.0).unbind())
