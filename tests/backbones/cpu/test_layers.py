"""Linear layers and depth-wise convolutions on a CPU."""

import copy
from typing import Any

import pytest
import torch
from timm.layers import Attention
from torch import nn
from torch.nn import functional as F

from sslight.backbones import adopt_cpu_layers, build_backbone
from sslight.backbones.cpu import layers as cpu_layers
from sslight.backbones.cpu.layers import Conv2d, Linear


def depthwise(stride: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    torch.manual_seed(0)
    plain = nn.Conv2d(16, 16, 3, stride=stride, padding=1, groups=16, bias=False)
    adopted = copy.deepcopy(plain)
    adopt_cpu_layers(adopted)
    assert type(adopted) is Conv2d
    return plain, adopted


def gradients(layer: nn.Conv2d, x: torch.Tensor, *, bf16: bool) -> tuple[torch.Tensor, ...]:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = layer(x)
        (y.float() * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is not None
    return y, x.grad, layer.weight.grad


CASES = [(1, 8), (2, 9), (1, 2), (2, 2)]


@pytest.mark.parametrize(("stride", "side"), CASES)
def test_in_float32_nothing_changes(stride: int, side: int) -> None:
    plain, adopted = depthwise(stride)
    x = torch.randn(4, 16, side, side)
    for a, b in zip(gradients(plain, x, bf16=False), gradients(adopted, x, bf16=False), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("stride", "side"), CASES)
def test_in_bfloat16_the_output_is_the_same_and_the_gradients_are_as_near_to_float32(stride: int, side: int) -> None:
    plain, adopted = depthwise(stride)
    x = torch.randn(4, 16, side, side).to(memory_format=torch.channels_last)
    exact = gradients(copy.deepcopy(plain), x, bf16=False)
    before, after = gradients(plain, x, bf16=True), gradients(adopted, x, bf16=True)
    assert torch.equal(before[0], after[0])
    assert after[0].dtype is torch.bfloat16
    for truth, a, b in zip(exact[1:], before[1:], after[1:], strict=True):
        assert b.dtype is torch.float32
        assert (b - truth).norm() <= 1.05 * (a - truth).norm() + 1e-6
        assert (b - truth).norm() < 0.01 * truth.norm()


def test_a_layer_whose_input_needs_no_gradient_still_learns() -> None:
    _, adopted = depthwise(2)
    with torch.autocast("cpu", torch.bfloat16):
        adopted(torch.randn(4, 16, 8, 8)).float().sum().backward()
    assert adopted.weight.grad is not None


@pytest.mark.parametrize("kernel", [3, 7])
def test_in_bfloat16_the_gradient_on_maps_of_one_pixel_takes_nothing_from_unwritten_memory(kernel: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(48, 48, kernel, stride=2, padding=kernel // 2, bias=False)
    adopt_cpu_layers(layer)
    x = torch.randn(16, 48, 1, 1)
    exact = gradients(layer, x, bf16=False)
    for _ in range(10):
        layer.weight.grad = None
        spoilt = [torch.full((1 << bits,), torch.nan) for bits in range(10, 20)]
        del spoilt  # what is allocated next holds these
        ours = gradients(layer, x, bf16=True)
        assert (ours[2] - exact[2]).norm() < 0.01 * exact[2].norm()


def test_adopting_keeps_the_state_of_a_network() -> None:
    network = build_backbone("mobilenet_v2")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    adopt_cpu_layers(network)
    after = network.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert sum(type(module) is Conv2d for module in network.modules()) == 52


@pytest.fixture(params=[True, False], ids=["oneDNN", "PyTorch's own"])
def through_onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(cpu_layers, "onednn_is_faster", lambda: request.param)
    return bool(request.param)


@pytest.mark.parametrize("shape", [(300, 64), (6, 50, 64)], ids=["rows", "batches of rows"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_a_linear_layer_and_its_gradients_are_those_of_double_precision(
    shape: tuple[int, ...], bias: bool, through_onednn: bool
) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 80, bias=bias)
    exact = copy.deepcopy(layer).double()
    adopt_cpu_layers(layer)
    assert type(layer) is Linear
    x = torch.randn(shape, requires_grad=True)
    exact_x = x.detach().double().requires_grad_()
    y, exact_y = layer(x), exact(exact_x)
    assert ("OneDNN" in _chain(y.grad_fn)) == through_onednn
    direction = torch.randn_like(exact_y)
    y.backward(direction.float())
    exact_y.backward(direction)
    pairs = [(y, exact_y), (x.grad, exact_x.grad)]
    pairs += [(p.grad, q.grad) for p, q in zip(layer.parameters(), exact.parameters(), strict=True)]
    for ours, truth in pairs:
        assert ours is not None
        assert truth is not None
        assert (ours.double() - truth).norm() <= 1e-6 * truth.norm()


def test_only_float32_on_a_cpu_goes_through_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_layers, "onednn_is_faster", lambda: True)
    weight = torch.randn(1024, 64)
    x = torch.randn(64, 64, requires_grad=True)
    names = {
        "float32": cpu_layers.linear(x, weight).grad_fn,
        "float64": cpu_layers.linear(x.double(), weight.double()).grad_fn,
        "small": cpu_layers.linear(x[:1], weight).grad_fn,
    }
    with torch.autocast("cpu", torch.bfloat16):
        names["bfloat16"] = cpu_layers.linear(x, weight).grad_fn
    through = {name for name, function in names.items() if "OneDNN" in _chain(function)}
    assert through == {"float32"}


def _chain(function: Any) -> str:
    return "" if function is None else function.name() + "".join(_chain(f) for f, _ in function.next_functions[:1])


@pytest.mark.parametrize("arguments", [{}, {"qk_norm": True, "scale_norm": True, "norm_layer": nn.LayerNorm}])
def test_attention_in_bf16_is_as_near_to_float32_as_pytorchs(
    arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_layers, "onednn_computes_bf16", lambda: True)
    torch.manual_seed(0)
    plain = Attention(96, num_heads=3, qkv_bias=True, **arguments)
    adopted = copy.deepcopy(plain)
    adopt_cpu_layers(adopted)
    assert type(adopted) is cpu_layers.Attention
    x = torch.randn(4, 17, 96)

    def computed(attention: nn.Module, *, bf16: bool) -> list[torch.Tensor]:
        attention.zero_grad()
        inputs = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = attention(inputs)
        y.float().square().sum().backward()
        assert inputs.grad is not None
        return [y.detach().float(), inputs.grad, *(p.grad for p in attention.parameters() if p.grad is not None)]

    exact, fused = computed(plain, bf16=False), computed(plain, bf16=True)
    monkeypatch.setattr(F, "scaled_dot_product_attention", None)  # the products do without it
    for ours, theirs, wanted in zip(computed(adopted, bf16=True), fused, exact, strict=True):
        assert ours.dtype is wanted.dtype
        assert (ours - wanted).norm() <= 1.5 * (theirs - wanted).norm() + 1e-6
        assert not torch.equal(ours, wanted)


def test_attention_outside_bf16_is_timms() -> None:
    plain = build_backbone("vit_tiny", image_size=32, patch_size=8)
    adopted = copy.deepcopy(plain)
    adopt_cpu_layers(adopted)
    assert any(type(module) is cpu_layers.Attention for module in adopted.modules())
    assert list(adopted.state_dict()) == list(plain.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(adopted.eval()(x), plain.eval()(x))


@pytest.mark.parametrize(("tokens", "has_mask"), [(cpu_layers._MOST_TOKENS + 1, False), (17, True)])
def test_attention_over_many_tokens_or_with_a_mask_stays_pytorchs(
    tokens: int, has_mask: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_layers, "onednn_computes_bf16", lambda: True)
    plain = Attention(24, num_heads=3)
    adopted = copy.deepcopy(plain)
    adopt_cpu_layers(adopted)
    x, mask = torch.randn(1, tokens, 24), torch.ones(tokens, tokens, dtype=torch.bool).tril() if has_mask else None
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(adopted(x, attn_mask=mask), plain(x, attn_mask=mask))
