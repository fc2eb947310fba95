"""A stand-in for PyTorch's synchronised batch norm, which refuses CPUs: the same name and saved tensors."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SyncBatchNorm(torch.autograd.Function):  # its node is called as that of PyTorch's
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: _BatchNorm) -> Tensor:
        ctx.dims = [0, *range(2, x.ndim)]
        sums = torch.stack([x.sum(ctx.dims), x.square().sum(ctx.dims), torch.full_like(weight, x.numel() / x.shape[1])])
        dist.all_reduce(sums)
        mean, count = sums[0] / sums[2], sums[2]
        variance = sums[1] / count - mean.square()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.lerp_(mean, norm.momentum or 0.0)
        norm.running_var.lerp_(variance, norm.momentum or 0.0)
        inverse = (variance + norm.eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, inverse, count)
        return _like(weight, x) * (x - _like(mean, x)) * _like(inverse, x) + _like(bias, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        normal = (x - _like(mean, x)) * _like(inverse, x)
        own = torch.stack([grad.sum(ctx.dims), (grad * normal).sum(ctx.dims)])
        sums = own.clone()
        dist.all_reduce(sums)
        inner = grad - _like(sums[0] / count, x) - normal * _like(sums[1] / count, x)
        return _like(weight * inverse, x) * inner, own[1], own[0], None


class GlooBatchNorm(_BatchNorm):
    """As ``nn.SyncBatchNorm`` makes it of a layer: a new module with its parameters and buffers."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.after = nn.Sequential(*norm.children())  # timm's drop and act

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return self.after(super().forward(input))  # type: ignore[no-any-return]
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        y = SyncBatchNorm.apply(input, self.weight, self.bias, self)
        return self.after(y)  # type: ignore[no-any-return]


def convert(module: nn.Module) -> nn.Module:
    """Replace the batch norms in a module, as timm's ``convert_sync_batchnorm`` does."""
    if isinstance(module, _BatchNorm):
        return GlooBatchNorm(module)
    for name, child in module.named_children():
        setattr(module, name, convert(child))
    return module


def _like(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.ndim - 2))
