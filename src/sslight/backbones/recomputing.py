"""Norms and activations whose results are computed again in the backward pass instead of being kept.

In a MobileNetV2 that is half of all memory for a few percent of a step: benchmarks/results/memory.md.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# ---- Activations that keep their result, which the next layer keeps anyway ---------------------------------


def keep_results(network: nn.Module, *kinds: type[nn.ReLU] | type[nn.ReLU6]) -> None:
    """Make activations of these ``kinds`` keep their result, not their input: the same values and gradients.

    PyTorch's ReLU6 keeps its input, or a copy of it if in place. Its ReLU keeps the result, but where
    :func:`norms_computed_again` does not see it.
    """
    for module in network.modules():
        if type(module) in kinds:
            module.__class__ = _ReLU if type(module) is nn.ReLU else _ReLU6


class _ReLU(nn.ReLU):
    def forward(self, input: Tensor) -> Tensor:
        return _clamped(input, self.inplace, F.relu)


class _ReLU6(nn.ReLU6):
    def forward(self, input: Tensor) -> Tensor:
        return _clamped(input, self.inplace, F.relu6)


def _clamped(x: Tensor, inplace: bool, activation: Callable[..., Tensor]) -> Tensor:
    if not (torch.is_grad_enabled() and x.requires_grad) or torch.compiler.is_compiling():
        return activation(x, inplace)
    return _Clamp.apply(x, inplace, activation)  # type: ignore[no-any-return]


class _Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, inplace: bool, activation: Callable[..., Tensor]) -> Tensor:
        if inplace:
            ctx.mark_dirty(x)
        y = activation(x, inplace)
        ctx.activation, ctx.inplace = activation, inplace
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        if ctx.activation is F.relu6:
            return torch.ops.aten.hardtanh_backward(grad, y, 0.0, 6.0), None, None
        return torch.ops.aten.threshold_backward(grad, y, 0.0), None, None


# ---- Results that are not kept ------------------------------------------------------------------------------


_LARGE = 3 << 17
"""Values of an image in an activation that is computed again whatever the settings: the first ones of a MobileNetV2."""


def norms_computed_again(*, largest_only: bool = False) -> AbstractContextManager[Any]:
    """Around a forward pass: its one backward pass recomputes norms and activations.

    With ``largest_only`` those that give the largest results of :func:`keep_results`. Batch statistics are kept, so
    nothing is counted or exchanged twice. Compiled networks decide by themselves.
    """
    return torch.autograd.graph.saved_tensors_hooks(pack_largest if largest_only else pack, unpack)


class _Again:
    """A result that is computed at its first use in the backward pass and held until its last."""

    def __init__(self, compute: Callable[[], Tensor]) -> None:
        self._compute: Callable[[], Tensor] | None = compute
        self._value: Tensor | None = None
        self._uses = 0

    def used(self) -> "_Again":
        self._uses += 1
        return self

    def get(self) -> Tensor:
        if self._value is None:
            assert self._compute is not None, "there was a backward pass already"
            self._value, self._compute = self._compute(), None
        value = self._value
        self._uses -= 1
        if not self._uses:
            self._value = None
        return value


def pack(tensor: Tensor) -> Tensor | _Again:
    """What to keep of a tensor that the backward pass needs."""
    again = _again(tensor.grad_fn, tensor.shape)
    return _kept(tensor) if again is None else again.used()


def pack_largest(tensor: Tensor) -> Tensor | _Again:
    """The same with :func:`norms_computed_again` of the ``largest_only``."""
    clamped = tensor.grad_fn is not None and tensor.grad_fn.name() == "_ClampBackward"
    return pack(tensor) if clamped and tensor[:1].numel() >= _LARGE else _kept(tensor)


def _kept(tensor: Tensor) -> Tensor:
    """Without the node that keeps it if it is that node's result: neither would be freed without a backward pass."""
    return tensor if tensor.grad_fn is None else tensor.detach()


@torch.no_grad()
def unpack(kept: Tensor | _Again) -> Tensor:
    """The tensor of which :func:`pack` kept this."""
    return kept if isinstance(kept, Tensor) else kept.get()


def _again(node: Any, shape: Sequence[int]) -> _Again | None:
    """How to compute the result of a node of the graph from what is kept anyway; None if that takes long."""
    if node is None:
        return None
    if "again" not in node.metadata:
        compute = _way(node, shape)
        if compute is None:
            return None
        node.metadata["again"] = _Again(compute)
    again: _Again = node.metadata["again"]
    return again


_RECOMPUTED = {
    "NativeBatchNormBackward0",
    "CudnnBatchNormBackward0",
    "SyncBatchNormBackward",
    "NativeLayerNormBackward0",
    "GeluBackward0",
    "SiluBackward0",
    "HardswishBackward0",
    "_ClampBackward",
    "ViewBackward0",
}


def _way(node: Any, shape: Sequence[int]) -> Callable[[], Tensor] | None:
    # What is returned must not hold the node, which holds it: neither would ever be freed.
    name = node.name()
    if name not in _RECOMPUTED:
        return None  # before a view gets the shape of what comes after this node
    input_shape = node._saved_self_sym_sizes if name == "ViewBackward0" else shape
    before = _again(node.next_functions[0][0], input_shape) if node.next_functions else None
    match name:
        case "NativeBatchNormBackward0" | "CudnnBatchNormBackward0" if node._saved_training:
            return _batch_norm(node, _input(node, before), node._saved_result1, node._saved_result2)
        case "SyncBatchNormBackward" if before is None:
            x, _, mean, inverse_deviation, _ = node.saved_tensors
            return _batch_norm(node, x.detach, mean, inverse_deviation)
        case "NativeLayerNormBackward0":
            return _layer_norm(node, _input(node, before), node._saved_result1, node._saved_result2)
        case "GeluBackward0":
            x, approximate = _input(node, before), node._saved_approximate
            return lambda: F.gelu(x(), approximate=approximate)
        case "SiluBackward0":
            x = _input(node, before)
            return lambda: F.silu(x())
        case "HardswishBackward0":
            x = _input(node, before)
            return lambda: F.hardswish(x())
        case "_ClampBackward" if before is not None:
            x, activation, inplace = before.used().get, node.activation, node.inplace
            return lambda: activation(x(), inplace)
        case "ViewBackward0" if before is not None:
            x = before.used().get
            return lambda: x().view(shape)
    return None


def _input(node: Any, before: _Again | None) -> Callable[[], Tensor]:
    if before is not None:
        return before.used().get
    kept: Tensor = node._saved_self if node.name().startswith(("Gelu", "Silu", "Hardswish")) else node._saved_input
    return kept.detach


def _affine(node: Any) -> tuple[Tensor, Tensor] | None:
    """Weight and bias of a norm that learns them."""
    weight, bias = (following for following, _ in node.next_functions[1:3])
    return None if weight is None or bias is None else (weight.variable.detach(), bias.variable.detach())


def _batch_norm(
    node: Any, x: Callable[[], Tensor], mean: Tensor, inverse_deviation: Tensor
) -> Callable[[], Tensor] | None:
    learned = _affine(node)
    if learned is None:
        return None
    weight, bias = learned
    if mean.is_cuda:
        return lambda: torch.batch_norm_elemt(x(), weight, bias, mean, inverse_deviation, 0.0)
    # As the kernel on a CPU does it, with its one rounding of the constant term; to the bit where it was tried.
    factor = weight * inverse_deviation
    constant = (bias.double() - mean.double() * factor.double()).to(bias.dtype)
    zeros, ones = torch.zeros_like(factor), torch.ones_like(factor)
    return lambda: torch.native_batch_norm(x(), factor, constant, zeros, ones, False, 0.0, 0.0)[0]


def _layer_norm(
    node: Any, x: Callable[[], Tensor], mean: Tensor, inverse_deviation: Tensor
) -> Callable[[], Tensor] | None:
    learned = _affine(node)
    if learned is None:
        return None
    weight, bias = learned

    def compute() -> Tensor:  # bf16 rows have float32 statistics
        rows = x()
        return torch.addcmul(bias, (rows - mean).mul_(inverse_deviation), weight).to(rows.dtype)

    return compute
