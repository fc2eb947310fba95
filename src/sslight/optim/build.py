"""The optimizer that the settings ask for, and what is done with it before a step."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from sslight.config import OptimSettings
from sslight.optim.groups import ParameterGroup, parameter_groups
from sslight.optim.lars import LARS
from sslight.optim.muon import muon_groups


def build_optimizer(settings: OptimSettings, groups: list[ParameterGroup], *, fused: bool = False) -> Optimizer:
    """LARS, Muon, AdamW or SGD over groups of :func:`~sslight.optim.parameter_groups`.

    Its rate is 0 and its decay that of the settings' start until :func:`set_rates`, which belongs before
    every step, sets them. AdamW decouples its decay from the gradient (Loshchilov & Hutter, ICLR 2019)
    and keeps PyTorch's betas. ``fused`` takes one kernel for all of AdamW or SGD: the same but for rounding, for
    GPUs, and without a loss scale.

    Raises:
        ValueError: the network has no kernels for Muon.
    """
    optimizer: Optimizer
    match settings.name:
        case "lars" | "muon":
            if settings.name == "muon":
                groups = _with_muon(groups)
            optimizer = LARS(groups, lr=0.0, momentum=settings.momentum, eta=settings.lars_eta)
        case "adamw":
            optimizer = torch.optim.AdamW(groups, lr=0.0, fused=fused, foreach=not fused)
        case "sgd":
            momentum = settings.momentum
            optimizer = torch.optim.SGD(groups, lr=0.0, momentum=momentum, fused=fused, foreach=not fused)
    set_rates(optimizer, lr=0.0, weight_decay=settings.weight_decay)
    return optimizer


def _with_muon(groups: list[ParameterGroup]) -> list[ParameterGroup]:
    try:
        return muon_groups(groups)
    except ValueError as error:
        raise ValueError(f"optim.name=muon, but {str(error).removesuffix('.')}: set optim.name=lars.") from None


def check_optimizer(settings: OptimSettings, *modules: nn.Module) -> None:
    """Refuse before a run what :func:`build_optimizer` would refuse in it.

    Raises:
        ValueError: the network has no kernels for Muon.
    """
    if settings.name == "muon":
        _with_muon(parameter_groups(*modules))


def set_rates(optimizer: Optimizer, *, lr: float, weight_decay: float) -> None:
    """Set the learning rate and weight decay of every group, times the group's own factors."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
        group["weight_decay"] = weight_decay * group["weight_decay_factor"]


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
