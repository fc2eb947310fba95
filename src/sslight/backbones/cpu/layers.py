"""Layers with the same results as PyTorch's, through kernels that are faster when training on a CPU."""

import platform
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Attention as TimmAttention
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from sslight.backbones.cpu.small_maps import (
    bf16_is_fast_on_cpu,
    convolve,
    gains_as_product,
    onednn_computes_bf16,
)

_SMALLEST_PRODUCT = 1 << 20  # multiplications; below, the cost is that of calling
_MOST_TOKENS = 512  # with 3 heads the map of a layer is then 1.5 MiB an image


def adopt_cpu_layers(network: nn.Module) -> None:
    """Replace a network's plain linear layers, convolutions and attention by those of this file, in place.

    Parameters and state-dict names stay the same; on other devices nothing changes.
    """
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
        elif type(module) is nn.Conv2d and _is_plain(module):
            module.__class__ = Conv2d
        elif type(module) is TimmAttention and module.fused_attn and module.gate is None:
            module.__class__ = Attention


# ---- Linear layers in float32 -------------------------------------------------------------------------------


class Linear(nn.Linear):
    """``nn.Linear`` through :func:`linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """``[..., in_features]`` → ``[..., out_features]``."""
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear``: x ``[..., I]``, weight ``[O, I]`` and bias ``[O]`` → ``[..., O]``, and its gradients.

    PyTorch multiplies float32 matrices with MKL, which uses half the width of an AMD processor's vector units; oneDNN
    uses all of it and takes half the time. Only the order of the sums differs.
    """
    if not _through_onednn(x, weight):
        return F.linear(x, weight, bias)
    product: Tensor = _OneDNNLinear.apply(x.flatten(0, -2), weight, bias)
    return product.view(*x.shape[:-1], len(weight))


def _through_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype is weight.dtype is torch.float32
        and x.ndim > 1
        and x.numel() * len(weight) >= _SMALLEST_PRODUCT
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and onednn_is_faster()
    )


@lru_cache(maxsize=1)
def onednn_is_faster() -> bool:
    """Whether this is an AMD processor on which PyTorch would multiply with MKL although it has oneDNN."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]
        return False
    processors = Path("/proc/cpuinfo")
    vendor = processors.read_text() if processors.is_file() else platform.processor()
    return "AuthenticAMD" in vendor and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        x_wanted, weight_wanted, bias_wanted = ctx.needs_input_grad
        return (
            _product(grad, weight.t()) if x_wanted else None,
            _product(grad.t(), x.t()) if weight_wanted else None,
            grad.sum(0) if bias_wanted else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


# ---- Convolutions in bfloat16 -------------------------------------------------------------------------------


def slow_precision(precision: str, device: torch.device) -> str | None:
    """A sentence if a precision costs time on this device instead of saving it.

    Measured on an AMD EPYC with AVX2 only: steps in bf16 took 5 times (RegNetX-200MF) to 10 times (MobileNetV2) as long
    as in float32; with AVX-512 but no instructions for bf16, 1.2 to 1.4 times.
    """
    if precision != "bf16" or device.type != "cpu" or bf16_is_fast_on_cpu():
        return None
    return (
        f"warning: precision=bf16 is {'' if onednn_computes_bf16() else 'several times '}slower than 32 on this "
        "processor, which lacks the instructions for it (on x86: avx512_bf16 or amx_bf16): set precision=32."
    )


class Conv2d(nn.Conv2d):
    """A convolution that under bfloat16 autocast does without oneDNN's convolutions where these are poor.

    On small maps many are faster as products of matrices. Otherwise gradients are computed in float32 if need be:
    those of depth-wise convolutions with a stride of 2, or on maps smaller than the kernel, take 7 to 200 times as
    long as in float32. Those of any convolution with a stride of 2 on maps of one pixel are wrong: the weight's
    gradient takes in memory that was never written, and so is NaN now and then.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C, H, W]`` → ``[N, D, h, w]``."""
        if not _bf16_on_cpu(input):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            if gains_as_product(self, max(input.shape[-2:])) and not torch.compiler.is_compiling():
                return convolve(input, self.weight, self.stride[0])
            if torch.is_grad_enabled() and self._gradient_is_poor(min(input.shape[-2:])):
                return _Float32Gradient.apply(input, self.weight, self)  # type: ignore[no-any-return]
        return super().forward(input)

    def _gradient_is_poor(self, side: int) -> bool:
        strided, kernel = self.stride != (1, 1), self.kernel_size[0]
        if self.groups == self.in_channels > 1:
            return strided or side < kernel
        return strided and side <= kernel // 2


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


class Attention(TimmAttention):  # type: ignore[misc]  # timm has no type information
    """timm's self-attention, under bfloat16 autocast as two products of matrices.

    PyTorch's fused attention takes longer in bfloat16 than in float32 on a CPU; two products and a softmax took 0.3
    to 0.6 of its time forward and backward (257 and 82 tokens of 3 heads), for a map of weights that is kept. That map
    grows with the square of the tokens, so longer sequences keep PyTorch's, whose memory does not.
    """

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """``[B, N, D]`` → ``[B, N, D]``."""
        is_plain = attn_mask is None and not is_causal and x.shape[1] <= _MOST_TOKENS
        if not (is_plain and _bf16_on_cpu(x) and onednn_computes_bf16()):
            return super().forward(x, attn_mask, is_causal)  # type: ignore[no-any-return]
        parts = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind()
        scores = (self.q_norm(query) * self.scale) @ self.k_norm(key).transpose(-2, -1)
        with torch.autocast("cpu", enabled=False):  # it would make the weights float32, to be kept at twice the size
            weights = self.attn_drop(scores.softmax(-1))
        heads = (weights @ value).transpose(1, 2).flatten(2)
        projected: Tensor = self.proj_drop(self.proj(self.norm(heads)))
        return projected


def _bf16_on_cpu(x: Tensor) -> bool:
    is_bf16 = torch.get_autocast_dtype("cpu") is torch.bfloat16
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and is_bf16


def _is_plain(layer: nn.Conv2d) -> bool:
    return layer.bias is None and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
