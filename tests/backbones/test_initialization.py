import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslight.backbones import build_backbone, initialize_smoothly


def built(name: str, *, smooth: bool) -> nn.Module:
    torch.manual_seed(0)
    backbone = build_backbone(name)
    if smooth:
        initialize_smoothly(backbone)
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


def test_two_crops_agree_more_from_a_smooth_start() -> None:
    assert agreement(built("mobilenet_v2", smooth=True)) > agreement(built("mobilenet_v2", smooth=False)) + 0.2


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenetv3_small_050", "efficientnet_b0_gn"])
def test_features_are_finite_and_differ_between_images(name: str) -> None:
    backbone = built(name, smooth=True)
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for mode in (False, True):
            features = backbone.train(mode)(images)
            assert torch.isfinite(features).all()
    assert F.normalize(features).std(0).max() > 1e-3


def test_kernels_move_towards_mean_filters_and_residual_branches_start_at_zero() -> None:
    standard, smooth = built("mobilenet_v2", smooth=False), built("mobilenet_v2", smooth=True)
    before, after = (network.get_parameter("blocks.3.1.conv_dw.weight") for network in (standard, smooth))
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, 0.3 * old + 0.7 * old.norm() / 3)
    before, after = (network.get_parameter("conv_stem.weight") for network in (standard, smooth))
    torch.testing.assert_close(after, 0.3 * before + 0.7 * before.sum((2, 3), keepdim=True).expand_as(before) / 3)
    pointwise = "blocks.3.1.conv_pw.weight"
    assert torch.equal(smooth.state_dict()[pointwise], standard.state_dict()[pointwise])
    x = torch.randn(2, 64, 8, 8)
    assert torch.equal(smooth.get_submodule("blocks.3.1")(x), x)
    assert not torch.equal(standard.get_submodule("blocks.3.1")(x), x)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny", "mobileone_s0"])
def test_networks_without_inverted_residual_blocks_stay_as_they_are(name: str) -> None:
    standard, smooth = built(name, smooth=False).state_dict(), built(name, smooth=True).state_dict()
    assert all(torch.equal(smooth[key], value) for key, value in standard.items())


def test_nothing_random_is_drawn() -> None:
    backbone, state = build_backbone("mobilenet_v2"), torch.get_rng_state()
    initialize_smoothly(backbone)
    assert torch.equal(torch.get_rng_state(), state)
