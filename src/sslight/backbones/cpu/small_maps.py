"""Convolutions on maps of a few pixels as products of bfloat16 matrices, which a CPU computes faster.

oneDNN packs a convolution's weights anew at every call and multiplies with the zeros around the map: on a map of
2 px, 20 of a 3 × 3 convolution's 36 products a channel. What wins, and where, was measured; see
``benchmarks/results/step.md``. The sums are those of the convolution but for the order of their terms.
"""

import platform
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_DENSE_SIDE = 2  # of a map on which every output pixel sees every input pixel
_LARGEST_SIDE = {1: 7, 2: 16}  # of a 3 × 3 convolution's input, for each stride
_LARGEST_PIXEL_SIDE = 16  # of a 1 × 1 convolution's input
_FEWEST_CHANNELS = 128  # of a 3 × 3 convolution


def gains_as_product(layer: nn.Conv2d, side: int) -> bool:
    """Whether :func:`convolve` can replace a layer without bias, and is faster on maps of ``side`` px."""
    stride, kernel = layer.stride[0], layer.kernel_size[0]
    is_square = layer.stride == (stride, stride) and layer.kernel_size == (kernel, kernel)
    is_plain = is_square and layer.groups == 1 and layer.dilation == (1, 1)
    if not (is_plain and stride in (1, 2) and onednn_computes_bf16()):
        return False
    if kernel == 1:
        return layer.padding == (0, 0) and side <= _LARGEST_PIXEL_SIDE
    is_wide = min(layer.in_channels, layer.out_channels) >= _FEWEST_CHANNELS
    return kernel == 3 and layer.padding == (1, 1) and is_wide and side <= _LARGEST_SIDE[stride]


@lru_cache(maxsize=1)
def onednn_computes_bf16() -> bool:
    """Whether oneDNN computes in bfloat16 here; else PyTorch's own convolutions do, which are slow."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return torch.backends.mkldnn.is_available() and supported is not None and bool(supported())  # type: ignore[no-untyped-call]


def bf16_is_fast_on_cpu() -> bool:
    """Whether a step in bfloat16 takes less time than one in float32.

    With AVX-512 but without instructions for bfloat16, where oneDNN converts every value, MobileNetV2 and
    MobileNetV3-Small made 0.81 and 0.73 of float32's images a second.
    """
    on_x86 = platform.machine().lower() in ("x86_64", "amd64")
    kinds = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")]
    return onednn_computes_bf16() and (not on_x86 or None in kinds or any(known() for known in kinds if known))


def convolve(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """A 1 × 1 or a padded 3 × 3 convolution in bfloat16; call it with autocast off.

    Args:
        x: ``[N, C, H, W]`` of any floating dtype.
        weight: ``[D, C, k, k]``, k = 1 or 3; its gradient keeps its dtype.
        stride: 1 or 2.

    Returns:
        ``[N, D, h, w]`` in bfloat16, channels last.
    """
    if weight.shape[-1] == 1:
        x = x[:, :, ::stride, ::stride].to(torch.bfloat16)
        product = F.linear(_rows(x, 3), weight.flatten(1).to(torch.bfloat16))
        return _maps(product, x.shape)
    y: Tensor = _Convolution3x3.apply(x, weight, stride)
    return y


class _Convolution3x3(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.stride, ctx.dtypes = stride, (x.dtype, weight.dtype)
        x = x.to(torch.bfloat16, memory_format=torch.channels_last)
        half = weight.to(torch.bfloat16, memory_format=torch.channels_last)
        ctx.is_dense = stride == 1 and max(x.shape[-2:]) <= _DENSE_SIDE
        if ctx.is_dense:
            matrix = _dense_matrix(half, x.shape[-2], x.shape[-1])
            ctx.save_for_backward(x, matrix)
            return _maps(_rows(x, 1) @ matrix.t(), x.shape)
        ctx.save_for_backward(x, half)
        return F.conv2d(x, half, padding=1) if stride == 1 else _strided(x, half)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        x_dtype, weight_dtype = ctx.dtypes
        x_wanted, weight_wanted, _ = ctx.needs_input_grad
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = None
        if x_wanted and ctx.is_dense:
            grad_x = _maps(_rows(grad, 1) @ weight, grad.shape)
        elif x_wanted:
            sides: tuple[Any, ...] = ([ctx.stride] * 2, [1, 1], [1, 1], False, [0, 0], 1, [True, False, False])
            grad_x = torch.ops.aten.convolution_backward(grad, x, weight, None, *sides)[0]
        return (
            None if grad_x is None else grad_x.to(x_dtype),
            _weight_gradient(x, grad, ctx.stride, weight_dtype) if weight_wanted else None,
            None,
        )


def _dense_matrix(weight: Tensor, height: int, width: int) -> Tensor:
    """The matrix ``[h·w·D, h·w·C]`` of a 3 × 3 convolution on maps of at most 2 px."""
    taps = weight.permute(0, 2, 3, 1)
    num_out, num_in = weight.shape[:2]
    matrix = weight.new_empty((height, width, num_out, height, width, num_in))
    for i in range(height):
        for j in range(width):
            matrix[i, j] = taps[:, 1 - i : 1 - i + height, 1 - j : 1 - j + width]
    return matrix.view(height * width * num_out, -1)


def _strided(x: Tensor, weight: Tensor) -> Tensor:
    """A 3 × 3 convolution with a stride of 2: the input's windows as rows, times the weights."""
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
    num, height, width, channels = padded.shape
    h, w = (height - 1) // 2, (width - 1) // 2
    row = width * channels
    windows = padded.as_strided((num, h, w, 3, 3 * channels), (height * row, 2 * row, 2 * channels, row, 1))
    product = windows.reshape(num * h * w, -1) @ weight.permute(0, 2, 3, 1).flatten(1).t()
    return _maps(product, (num, channels, h, w))


def _weight_gradient(x: Tensor, grad: Tensor, stride: int, dtype: torch.dtype) -> Tensor:
    """``[D, C, 3, 3]``, tap by tap: the product of the output's gradient with the pixels that the tap met."""
    taps = x.new_empty((grad.shape[1], 3, 3, x.shape[1]), dtype=dtype)
    for i, (outputs_down, inputs_down) in enumerate(_meetings(x.shape[-2], stride)):
        for j, (outputs_right, inputs_right) in enumerate(_meetings(x.shape[-1], stride)):
            outputs = _rows(grad[:, :, outputs_down, outputs_right], 3)
            taps[:, i, j] = outputs.t() @ _rows(x[:, :, inputs_down, inputs_right], 3)
    return taps.permute(0, 3, 1, 2)


def _meetings(side: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """For each tap of three along one side: the output pixels that it serves and the input pixels that it meets."""
    num_out = (side - 1) // stride + 1
    for tap in range(3):
        first = 1 if tap == 0 else 0
        last = min(num_out - 1, (side - tap) // stride)  # before the first if the tap meets only zeros
        start = first * stride + tap - 1
        yield slice(first, last + 1), slice(start, start + stride * (last - first) + 1, stride)


def _rows(x: Tensor, first_dims: int) -> Tensor:
    """``[N, C, H, W]``, channels last, as a matrix of the first dimensions of ``[N, H, W, C]`` by the others."""
    return x.permute(0, 2, 3, 1).flatten(0, first_dims - 1).flatten(1)


def _maps(product: Tensor, shape: Sequence[int]) -> Tensor:
    """A product's rows as maps, channels last, of the batch and sides of ``shape`` ``[N, *, H, W]``."""
    return product.view(shape[0], shape[2], shape[3], -1).permute(0, 3, 1, 2)
