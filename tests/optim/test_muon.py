"""Muon for 1×1 convolutions, against its definition, and LARS for the rest."""

import copy

import pytest
import torch
from torch import Tensor, nn

from sslight.backbones import build_backbone
from sslight.config import OptimSettings
from sslight.optim import LARS, build_optimizer, check_optimizer, parameter_groups, set_rates
from sslight.optim.muon import muon_groups, orthogonal

MUON = OptimSettings(name="muon", momentum=0.8, lars_eta=0.002)


def muon_of(network: nn.Module, *, weight_decay: float = 0.0) -> LARS:
    optimizer = build_optimizer(MUON, parameter_groups(network))
    assert isinstance(optimizer, LARS)
    set_rates(optimizer, lr=0.5, weight_decay=weight_decay)
    return optimizer


def give_gradients(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)


@pytest.mark.parametrize("shape", [(16, 96), (96, 16), (40, 40)])
def test_the_iteration_brings_singular_values_near_to_one_and_keeps_their_directions(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    decades = torch.logspace(0, -2, shape[1], dtype=torch.float64)
    matrices = torch.randn((3, *shape), generator=generator, dtype=torch.float64) * decades
    found = orthogonal(1000 * matrices)
    assert found.shape == matrices.shape
    left, lengths, right = torch.linalg.svd(matrices, full_matrices=False)
    turned = left.mT @ found @ right.mT
    torch.testing.assert_close(turned, torch.diag_embed(turned.diagonal(dim1=1, dim2=2)), atol=1e-9, rtol=0)
    reached = turned.diagonal(dim1=1, dim2=2)[lengths > 0.002 * matrices.norm(dim=(1, 2))[:, None]]
    assert len(reached) > 3 * 10
    assert 0.68 < reached.min() < reached.max() < 1.21
    assert not orthogonal(torch.zeros(3, 4)).any()


def test_1x1_kernels_move_as_defined_and_the_rest_as_with_lars() -> None:
    torch.manual_seed(0)
    kernels = [nn.Conv2d(8, 24, 1), nn.Conv2d(24, 8, 1), nn.Conv2d(8, 24, 1)]
    others = [nn.Conv2d(24, 24, 3, groups=24), nn.Linear(9, 9), nn.Conv2d(520, 520, 1), nn.Conv2d(9, 1, 1)]
    network = nn.Sequential(*kernels, *others).double()
    twin = copy.deepcopy(network)
    muon = muon_of(network, weight_decay=0.1)
    lars = LARS(parameter_groups(twin), lr=0.0, momentum=0.8, eta=0.002)
    set_rates(lars, lr=0.5, weight_decay=0.1)
    wanted = [kernel.weight.detach().flatten(1).clone() for kernel in kernels]
    momenta = [torch.zeros_like(matrix) for matrix in wanted]
    for seed in range(3):
        for each in (network, twin):
            give_gradients(each, seed)
        muon.step()
        lars.step()
        for matrix, momentum, kernel in zip(wanted, momenta, kernels, strict=True):
            assert kernel.weight.grad is not None
            gradient = kernel.weight.grad.flatten(1)
            momentum.mul_(0.8).add_(gradient)
            update = orthogonal(gradient + 0.8 * momentum)
            matrix.sub_(0.5 * 3 * 0.002 * matrix.norm() * update / update.norm())
            torch.testing.assert_close(kernel.weight.detach().flatten(1), matrix)
    moved = {id(kernel.weight) for kernel in kernels}
    pairs = zip(network.parameters(), twin.parameters(), strict=True)
    assert all(torch.equal(one, other) != (id(one) in moved) for one, other in pairs)


def test_a_kernel_without_gradient_and_its_momentum_are_left_alone() -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False))
    muon, kernel = muon_of(network), network[0].weight
    assert isinstance(kernel, Tensor)
    give_gradients(network, 0)
    muon.step()
    before, momentum = kernel.detach().clone(), muon.state[kernel]["momentum_buffer"].clone()
    kernel.grad = None
    muon.step()
    assert torch.equal(kernel, before)
    assert torch.equal(muon.state[kernel]["momentum_buffer"], momentum)


def test_a_kernel_of_zeros_begins_to_move_and_one_without_gradient_signal_stays() -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False))
    zeros, still = (layer.weight for layer in network)
    assert isinstance(zeros, Tensor)
    assert isinstance(still, Tensor)
    nn.init.zeros_(zeros)
    before = still.detach().clone()
    give_gradients(network, 0)
    still.grad = torch.zeros_like(still)
    muon_of(network).step()
    assert zeros.norm().item() == pytest.approx(0.5 * 3 * 0.002, rel=1e-5)
    assert torch.equal(still, before)


def test_a_saved_state_continues_exactly() -> None:
    def trained(network: nn.Module, optimizer: LARS, seeds: range) -> None:
        for seed in seeds:
            give_gradients(network, seed)
            optimizer.step()

    torch.manual_seed(0)
    whole = nn.Sequential(nn.Conv2d(4, 12, 1), nn.Linear(3, 3))
    part = copy.deepcopy(whole)
    trained(whole, muon_of(whole), range(4))
    first = muon_of(part)
    trained(part, first, range(2))
    second = muon_of(part)
    second.load_state_dict(first.state_dict())
    trained(part, second, range(2, 4))
    for one, two in zip(whole.parameters(), part.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("backbone", "kernels", "share"),
    [("mobilenetv2_035", 34, 0.8), ("mobilenetv3_small_050", 41, 0.8), ("resnet50", 35, 0.4), ("resnet18", 3, 0.01)],
)
def test_how_much_of_a_network_it_moves(backbone: str, kernels: int, share: float) -> None:
    network = build_backbone(backbone, image_size=32)
    groups = muon_groups(parameter_groups(network))
    assert [group["name"] for group in groups] == [
        "regularised", "regularised_1x1", *["depthwise"] * ("mobile" in backbone), "unregularised"
    ]  # fmt: skip
    (turned,) = (group["params"] for group in groups if group.get("orthogonal"))
    assert len(turned) == kernels
    assert sum(map(Tensor.numel, turned)) > share * sum(map(Tensor.numel, network.parameters()))
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_networks_without_such_kernels_are_refused_in_a_sentence() -> None:
    vit = build_backbone("test_vit", image_size=32)
    message = r"^optim\.name=muon, but the network has no convolution of 1×1 with 2 to 512 .*: set optim\.name=lars\.$"
    with pytest.raises(ValueError, match=message):
        build_optimizer(MUON, parameter_groups(vit))
    with pytest.raises(ValueError, match=message):
        check_optimizer(MUON, vit)
    check_optimizer(OptimSettings(), vit)
