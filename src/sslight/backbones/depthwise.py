"""Depth-wise convolutions that train in bfloat16 on a CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


class _Float32Gradient(torch.autograd.Function):
    """A convolution without bias in bfloat16 whose gradients are computed in float32."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, layer: nn.Conv2d) -> Tensor:
        half = x.to(torch.bfloat16)
        ctx.save_for_backward(half, weight)
        ctx.layer, ctx.input_dtype = layer, x.dtype  # type: ignore[attr-defined]
        return F.conv2d(half, weight.to(torch.bfloat16), None, *_geometry(layer))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation, groups = _geometry(ctx.layer)
        wanted = [*ctx.needs_input_grad[:2], False]
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad.float(), x.float(), weight, None, stride, padding, dilation, False, [0, 0], groups, wanted
        )
        return None if grad_x is None else grad_x.to(ctx.input_dtype), grad_weight, None


def _geometry(layer: nn.Conv2d) -> tuple[Any, Any, Any, int]:
    return layer.stride, layer.padding, layer.dilation, layer.groups


class DepthwiseConv2d(nn.Conv2d):
    """A depth-wise convolution whose gradients under bfloat16 autocast on a CPU are computed in float32 where that
    is faster: oneDNN's bfloat16 ones take 7 to 200 times as long with a stride of 2 or on maps smaller than the kernel.

    In every other case it is an ordinary convolution. Parameters and state-dict names stay as they were.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C, H, W]`` → ``[N, C, h, w]``."""
        slow_in_bf16 = self.stride != (1, 1) or min(input.shape[-2:]) < self.kernel_size[0]
        if slow_in_bf16 and torch.is_grad_enabled() and _bf16_on_cpu(input):
            with torch.autocast("cpu", enabled=False):
                return _Float32Gradient.apply(input, self.weight, self)  # type: ignore[no-any-return]
        return super().forward(input)


def _bf16_on_cpu(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") is torch.bfloat16
    )


def adopt_depthwise_convolutions(backbone: nn.Module) -> None:
    """Turn the plain depth-wise convolutions without bias of a network into :class:`DepthwiseConv2d`, in place."""
    for module in backbone.modules():
        if (
            type(module) is nn.Conv2d
            and module.groups == module.in_channels > 1
            and module.bias is None
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        ):
            module.__class__ = DepthwiseConv2d
