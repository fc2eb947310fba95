import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslight.backbones import build_backbone, initialise_smoothly


def built(name: str, *, smooth: bool) -> nn.Module:
    torch.manual_seed(0)
    backbone = build_backbone(name)
    if smooth:
        initialise_smoothly(backbone)
    return backbone


def agreement(backbone: nn.Module) -> float:
    """Mean cosine between two crops' centred features in training mode, for coarse images with fine noise."""
    generator = torch.Generator().manual_seed(1)
    coarse = F.interpolate(torch.randn(48, 3, 4, 4, generator=generator), size=64, mode="bicubic")
    images = coarse + 0.3 * torch.randn(coarse.shape, generator=generator)

    @torch.no_grad()
    def features(crops: Tensor) -> Tensor:
        output: Tensor = backbone.train()(crops)
        return output - output.mean(0)

    return F.cosine_similarity(features(images[:, :, :48, :48]), features(images[:, :, 8:56, 8:56])).mean().item()


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_b0"])
def test_two_crops_agree_more_from_a_smooth_start(name: str) -> None:
    assert agreement(built(name, smooth=True)) > agreement(built(name, smooth=False)) + 0.1


def test_kernels_move_towards_mean_filters_and_residual_branches_start_at_zero() -> None:
    standard, smooth = built("mobilenet_v2", smooth=False), built("mobilenet_v2", smooth=True)
    before, after = (network.get_submodule("blocks.3.1.conv_dw") for network in (standard, smooth))
    for old, new in zip(before.weight, after.weight, strict=True):
        torch.testing.assert_close(new, 0.3 * old + 0.7 * old.norm() / 3)
    before, after = (network.get_submodule("conv_stem").weight for network in (standard, smooth))
    torch.testing.assert_close(after, 0.3 * before + 0.7 * before.sum((2, 3), keepdim=True).expand_as(before) / 3)
    pointwise = "blocks.3.1.conv_pw.weight"
    assert torch.equal(smooth.state_dict()[pointwise], standard.state_dict()[pointwise])
    x = torch.randn(2, 64, 8, 8)
    assert torch.equal(smooth.get_submodule("blocks.3.1")(x), x)
    assert not torch.equal(standard.get_submodule("blocks.3.1")(x), x)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny"])
def test_networks_without_depth_wise_layers_stay_as_they_are(name: str) -> None:
    standard, smooth = built(name, smooth=False).state_dict(), built(name, smooth=True).state_dict()
    assert all(torch.equal(smooth[key], value) for key, value in standard.items())


def test_nothing_random_is_drawn() -> None:
    backbone, state = build_backbone("mobilenet_v2"), torch.get_rng_state()
    initialise_smoothly(backbone)
    assert torch.equal(torch.get_rng_state(), state)
