"""Convolutions on small maps as products of bfloat16 matrices."""

import copy

import pytest
import torch
from torch import Tensor, nn

from sslight.backbones import adopt_cpu_layers, build_backbone
from sslight.backbones.cpu import layers as cpu_layers
from sslight.backbones.cpu import small_maps
from sslight.backbones.cpu.small_maps import (
    bf16_is_fast_on_cpu,
    convolve,
    gains_as_product,
    onednn_computes_bf16,
)

# kernel, stride, height, width
CASES = [
    *[(3, 1, *sides) for sides in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (4, 7))],
    *[(3, 2, *sides) for sides in ((1, 1), (1, 6), (2, 2), (3, 3), (4, 5))],
    *[(1, 1, 3, 2), (1, 2, 3, 4), (1, 2, 1, 1)],
]


def rounded(*shape: int) -> Tensor:
    """Random numbers that bfloat16 holds exactly."""
    return torch.randn(shape).bfloat16().float()


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["channels last", "planar"])
@pytest.mark.parametrize(("kernel", "stride", "height", "width"), CASES)
def test_values_and_gradients_are_those_of_the_convolution_in_double_precision_to_bfloat16s_rounding(
    kernel: int, stride: int, height: int, width: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    x = rounded(4, 24, height, width).to(memory_format=layout).requires_grad_()
    weight = rounded(40, 24, kernel, kernel).to(memory_format=layout).requires_grad_()
    exact_x, exact_weight = (t.detach().double().requires_grad_() for t in (x, weight))
    y = convolve(x, weight, stride)
    exact_y = nn.functional.conv2d(exact_x, exact_weight, None, stride, kernel // 2)
    direction = rounded(*exact_y.shape)
    torch.autograd.backward([y, exact_y], [direction.bfloat16(), direction.double()])
    assert y.dtype is torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)
    for ours, exact in ((y, exact_y), (x.grad, exact_x.grad), (weight.grad, exact_weight.grad)):
        assert ours is not None
        assert exact is not None
        assert ours.shape == exact.shape
        # One rounding, 2^-9 at most; more where PyTorch's own convolutions stand in for oneDNN's in some of these.
        assert (ours - exact).norm() < (0.003 if onednn_computes_bf16() else 0.006) * exact.norm()
    assert x.grad is not None
    assert x.grad.dtype is torch.float32


def test_a_frozen_layer_passes_gradients_on_and_an_input_without_gradient_still_teaches() -> None:
    for stride, side in ((1, 2), (2, 4), (1, 5)):
        weight = rounded(8, 8, 3, 3)
        x = rounded(2, 8, side, side).requires_grad_()
        torch.autograd.backward(convolve(x, weight, stride).sum())
        assert x.grad is not None
        weight.requires_grad_()
        torch.autograd.backward(convolve(x.detach(), weight, stride).sum())
        assert weight.grad is not None


def test_a_second_backward_pass_adds_to_the_gradient() -> None:
    weight, x = rounded(8, 8, 3, 3).requires_grad_(), rounded(2, 8, 2, 2)
    torch.autograd.backward(convolve(x, weight, 1).sum())
    assert weight.grad is not None
    once = weight.grad.clone()
    torch.autograd.backward(convolve(x, weight, 1).sum())
    assert torch.equal(weight.grad, 2 * once)


@pytest.fixture
def bf16_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_maps, "onednn_computes_bf16", lambda: True)


@pytest.mark.usefixtures("bf16_is_fast")
@pytest.mark.parametrize(
    ("arguments", "side", "gains"),
    [
        ({}, 2, True),
        ({}, 7, True),
        ({}, 8, False),
        ({"stride": 2}, 16, True),
        ({"stride": 2}, 17, False),
        ({"stride": 3}, 4, False),
        ({"stride": (1, 2)}, 4, False),
        ({"dilation": 2, "padding": 2}, 4, False),
        ({"padding": 0}, 4, False),
        ({"groups": 2}, 4, False),
        ({"kernel_size": 5, "padding": 2}, 4, False),
        ({"kernel_size": (3, 1)}, 4, False),
        ({"kernel_size": 1, "padding": 0}, 16, True),
        ({"kernel_size": 1, "padding": 1}, 16, False),
    ],
)
def test_only_the_geometries_that_were_measured_become_products(
    arguments: dict[str, int], side: int, gains: bool
) -> None:
    layer = nn.Conv2d(128, 128, **({"kernel_size": 3, "padding": 1} | arguments), bias=False)  # type: ignore[arg-type]
    assert gains_as_product(layer, side) == gains


@pytest.mark.usefixtures("bf16_is_fast")
def test_a_network_gives_in_bfloat16_what_it_gave_with_pytorchs_convolutions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    plain = build_backbone("resnet18").eval().to(memory_format=torch.channels_last)
    adopted = copy.deepcopy(plain)
    adopt_cpu_layers(adopted)
    calls: list[int] = []

    def counted(x: Tensor, weight: Tensor, stride: int) -> Tensor:
        calls.append(x.shape[-1])
        return convolve(x, weight, stride)

    monkeypatch.setattr(cpu_layers, "convolve", counted)
    x = torch.randn(2, 3, 64, 64)
    exact = plain(x)
    assert torch.equal(adopted(x), exact)
    assert not calls
    gradients = []
    for network in (plain, adopted):
        with torch.autocast("cpu", torch.bfloat16):
            features = network(x)
        assert (features - exact).norm() < 0.02 * exact.norm()
        features.float().square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert sorted(calls) == [2, 2, 2, 4, 4, 4, 4, 4, 8, 8, 16]
    assert (gradients[1] - gradients[0]).norm() < 0.03 * gradients[0].norm()


@pytest.mark.parametrize(
    ("instructions", "fast"), [((False, False), False), ((True, False), True), ((False, True), True)]
)
def test_avx512_alone_does_not_make_bf16_fast(
    instructions: tuple[bool, bool], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_maps, "onednn_computes_bf16", lambda: True)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for name, has in zip(("avx512_bf16", "amx_tile"), instructions, strict=True):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda has=has: has)
    assert bf16_is_fast_on_cpu() == fast
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert bf16_is_fast_on_cpu()
