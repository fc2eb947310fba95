"""Norms and activations that are computed again change memory, and nothing else."""

import copy
import gc
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sslight.backbones import build_backbone, keep_results, norms_computed_again, recomputing
from sslight.backbones.recomputing import pack, pack_largest, unpack

CLAMPS = nn.ReLU, nn.ReLU6


def gradients(network: nn.Module, images: Tensor, around: Callable[[], AbstractContextManager[Any]]) -> dict[str, Any]:
    """Of one forward and backward pass, with its result and the buffers after it."""
    with around():
        features = network(images)
    features.square().mean().backward()
    found = {name: p.grad for name, p in network.named_parameters()}
    return found | dict(network.named_buffers()) | {"features": features}


def assert_equal(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert value is not None, name
        assert torch.equal(ours[name], value), name


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("kind", CLAMPS)
def test_an_activation_that_keeps_its_result_gives_the_same_values_and_gradients(
    kind: type[nn.ReLU] | type[nn.ReLU6], inplace: bool
) -> None:
    x = torch.tensor([-1.0, -0.0, 0.0, 1e-30, 3.0, 6.0, 6.5, float("inf"), float("nan")])
    network = nn.Sequential(kind(inplace=inplace))
    results = []
    for keeps in (False, True):
        if keeps:
            keep_results(network, *CLAMPS)
            assert type(network[0]) is not kind
        source = x.clone().requires_grad_()
        y = network(source * 1)
        y.backward(torch.arange(1.0, 10.0))
        results.append((y.detach(), source.grad))
    for theirs, ours in zip(*results, strict=True):
        assert theirs is not None
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "vit_tiny", "mobilenetv3_small_050"])
def test_features_gradients_and_statistics_are_the_same(name: str) -> None:
    torch.manual_seed(0)
    plain = build_backbone(name, image_size=32)
    again = copy.deepcopy(plain)
    keep_results(again, *CLAMPS)
    images = torch.randn(4, 3, 32, 32).to(memory_format=torch.channels_last)
    theirs, ours = (
        gradients(network.to(memory_format=torch.channels_last), images, around)
        for network, around in ((plain, nullcontext), (again, norms_computed_again))
    )
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-5, atol=1e-7, msg=key)


def test_views_of_what_is_computed_again_have_their_own_shapes() -> None:
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 3), nn.Linear(3, 2), nn.Linear(12, 5)])

    class Views(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            normal, gelu, first, second, third = layers
            y = gelu(normal(x))  # [4, 8, 6]
            flat = y.view(32, 6)
            halves = flat.view(64, 3)
            total: Tensor = first(flat).sum() + second(halves).sum() + third(halves.view(16, 12)).sum() + first(y).sum()
            return total

    found = []
    for around in (nullcontext, norms_computed_again):
        x = torch.linspace(-1, 1, 192).view(4, 8, 6).requires_grad_()
        layers.zero_grad()
        with around():
            loss = Views()(x * 1)
        loss.backward()
        found.append([x.grad, *(p.grad for p in layers.parameters())])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_view_before_an_operation_of_another_shape_keeps_its_own() -> None:
    norm, linear = nn.LayerNorm(8), nn.Linear(8, 3)
    found = []
    for around in (nullcontext, norms_computed_again):
        x = torch.linspace(-1, 1, 256).view(32, 8).requires_grad_()
        with around():
            rows = norm(x * 1).view(4, 8, 8)
            mean = rows.mean(1)
            loss = (mean.sin() * mean).sum() + linear(rows).sum()
        found.append(torch.autograd.grad(loss, x)[0])
    torch.testing.assert_close(*found)


def test_norms_of_bf16_rows_give_bf16() -> None:
    network = build_backbone("test_convnext", image_size=32)
    found = []
    for around in (nullcontext, norms_computed_again):
        network.zero_grad()
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16), around():
            loss = network(torch.randn(2, 3, 32, 32)).sum()
        loss.backward()
        found.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.1, atol=0.05)


def kept_bytes(network: nn.Module, images: Tensor, way: Callable[[Tensor], Any]) -> int:
    """That a forward pass keeps, without weights and images."""
    known = {t.untyped_storage().data_ptr() for t in [*network.parameters(), *network.buffers(), images]}
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Any:
        packed = way(tensor)
        if isinstance(packed, Tensor) and packed.untyped_storage().data_ptr() not in known:
            known.add(packed.untyped_storage().data_ptr())
            kept.append(packed)
        return packed

    with torch.autograd.graph.saved_tensors_hooks(keep, unpack):
        network(images)
    return sum(t.untyped_storage().nbytes() for t in kept)


def test_a_mobilenet_v2_keeps_two_thirds_and_with_norms_computed_again_a_third() -> None:
    network = build_backbone("mobilenet_v2")
    images = torch.randn(2, 3, 64, 64)
    before = kept_bytes(network, images, lambda tensor: tensor)
    keep_results(network, nn.ReLU6)
    assert kept_bytes(network, images, pack_largest) < 0.70 * before
    assert kept_bytes(network, images, pack) < 0.37 * before


def test_the_views_of_the_mobilenet_v2_recipe_keep_less_than_200_megabytes_an_image() -> None:
    network = build_backbone("mobilenet_v2")
    keep_results(network, nn.ReLU6)
    views = torch.randn(2, 3, 224, 224), torch.randn(6, 3, 128, 128)
    assert 160e6 < sum(kept_bytes(network, images, pack_largest) for images in views) < 180e6


def test_the_largest_activations_alone_are_the_same_to_the_bit() -> None:
    torch.manual_seed(0)
    network = build_backbone("mobilenet_v2", image_size=128)
    keep_results(network, nn.ReLU6)
    images = torch.randn(2, 3, 128, 128).to(memory_format=torch.channels_last)
    theirs, ours = (
        gradients(copy.deepcopy(network).to(memory_format=torch.channels_last), images, around)
        for around in (nullcontext, lambda: norms_computed_again(largest_only=True))
    )
    assert_equal(ours, theirs)


@pytest.mark.parametrize("largest_only", [False, True])
def test_what_is_kept_is_freed_with_and_without_a_backward_pass(
    largest_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recomputing, "_LARGE", 4 * 8 * 8)
    norm = nn.BatchNorm2d(4)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 1), norm, nn.ReLU6(inplace=True), nn.Conv2d(4, 4, 1), nn.Sigmoid(), nn.GELU()
    )
    keep_results(layers, *CLAMPS)
    inputs: list[weakref.ref[Tensor]] = []
    norm.register_forward_pre_hook(lambda _, arguments: inputs.append(weakref.ref(arguments[0])))
    gc.disable()  # nothing may wait for it
    try:
        for backward in (False, True):
            with norms_computed_again(largest_only=largest_only):
                loss = layers(torch.randn(2, 3, 8, 8)).sum()
            if backward:
                loss.backward()
                assert inputs[-1]() is None  # before the graph is gone
            del loss
            assert inputs[-1]() is None
    finally:
        gc.enable()
