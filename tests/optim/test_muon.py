"""Muon for 1×1 convolutions, against its definition and against LARS."""

import copy

import pytest
import torch
from torch import Tensor, nn

from sslight.backbones import build_backbone
from sslight.config import OptimSettings
from sslight.optim import LARS, Muon, build_optimizer, parameter_groups, set_rates
from sslight.optim.muon import orthogonal


def nearest_orthogonal(matrix: Tensor) -> Tensor:
    left, _, right = torch.linalg.svd(matrix.flatten(1), full_matrices=False)
    turned: Tensor = left @ right
    return turned


def alike(one: Tensor, other: Tensor) -> float:
    return torch.cosine_similarity(one.flatten(), other.flatten(), dim=0).item()


@pytest.mark.parametrize("shape", [(16, 96), (96, 16), (40, 40)])
def test_the_iteration_brings_singular_values_near_to_one_and_keeps_their_directions(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64) @ torch.diag(torch.logspace(0, -1, shape[1], dtype=torch.float64))
    found = orthogonal(1000 * matrix)
    assert found.shape == shape
    lengths = torch.linalg.svdvals(found)
    assert lengths.max() < 1.25
    assert lengths[: min(shape) // 2].min() > 0.65
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    turned = left.T @ found @ right.T
    torch.testing.assert_close(turned, torch.diag(turned.diagonal()), atol=1e-9, rtol=0)
    assert not orthogonal(torch.zeros(3, 4)).any()


def test_small_matrices_of_convolutions_turn_and_the_rest_is_left_to_lars() -> None:
    torch.manual_seed(0)
    conv, depthwise = nn.Conv2d(8, 24, 1), nn.Conv2d(24, 24, 3, groups=24)
    network = nn.Sequential(conv, depthwise, nn.Linear(9, 9), nn.Conv2d(520, 520, 1))
    other, before = copy.deepcopy(network), conv.weight.detach().flatten(1).clone()
    gradient = (torch.randn(24, 8) + 3 * torch.randn(24, 1))[..., None, None]
    for weight in (*network.parameters(), *other.parameters()):
        weight.grad = gradient if weight.numel() == 192 else torch.linspace(-1, 1, weight.numel()).view_as(weight)
    muon, lars = Muon(parameter_groups(network), lr=1.0), LARS(parameter_groups(other), lr=1.0)
    for optimizer in (muon, lars):
        set_rates(optimizer, lr=1.0, weight_decay=0.1)
        optimizer.step()
    moved = before - conv.weight.detach().flatten(1)
    assert moved.norm().item() == pytest.approx(0.003 * before.norm().item(), rel=1e-3)
    lengths = torch.linalg.svdvals(gradient.flatten(1))
    assert lengths.max() > 5 * lengths.min()
    assert alike(moved, nearest_orthogonal(gradient)) > 0.95
    conv.weight.grad = second = torch.randn_like(gradient)
    between = conv.weight.detach().flatten(1).clone()
    muon.step()
    ahead = second + 0.9 * (0.9 * gradient + second)
    assert alike(between - conv.weight.detach().flatten(1), nearest_orthogonal(ahead)) > 0.95
    lars.step()
    kernels = zip(network.parameters(), other.parameters(), strict=True)
    assert [torch.equal(one, two) for one, two in kernels] == [False] + 7 * [True]


def test_a_kernel_without_gradient_and_its_momentum_are_left_alone() -> None:
    conv = nn.Conv2d(4, 4, 1, bias=False)
    before = conv.weight.detach().clone()
    muon = Muon(parameter_groups(conv), lr=1.0)
    muon.step()
    assert torch.equal(conv.weight, before)
    assert not muon.state[conv.weight]


def test_a_saved_state_continues_exactly() -> None:
    def trained(network: nn.Module, muon: Muon, seeds: range) -> None:
        for seed in seeds:
            for p in network.parameters():
                p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(seed))
            muon.step()

    torch.manual_seed(0)
    whole = nn.Sequential(nn.Conv2d(4, 12, 1), nn.Linear(3, 3))
    part = copy.deepcopy(whole)
    trained(whole, Muon(parameter_groups(whole), lr=1.0), range(4))
    first = Muon(parameter_groups(part), lr=1.0)
    trained(part, first, range(2))
    second = Muon(parameter_groups(part), lr=1.0)
    second.load_state_dict(first.state_dict())
    trained(part, second, range(2, 4))
    for one, two in zip(whole.parameters(), part.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("backbone", ["mobilenetv2_035", "mobilenetv3_small_050", "resnet18"])
def test_networks_with_1x1_convolutions_take_it(backbone: str) -> None:
    settings = OptimSettings(name="muon", momentum=0.8, lars_eta=0.002)
    muon = build_optimizer(settings, parameter_groups(build_backbone(backbone, image_size=32)))
    assert isinstance(muon, Muon)
    assert {(group["momentum"], group["eta"]) for group in muon.param_groups} == {(0.8, 0.002)}


def test_other_networks_are_refused_in_one_sentence() -> None:
    vit = build_backbone("test_vit", image_size=32)
    with pytest.raises(ValueError, match=r"1×1 convolutions .* set optim\.name to lars or adamw"):
        build_optimizer(OptimSettings(name="muon"), parameter_groups(vit))
