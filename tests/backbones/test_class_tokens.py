"""Class tokens of the last blocks against the recorded ones."""

import pytest
import torch

from sslight.backbones import build_backbone, num_features
from sslight.backbones.class_tokens import LastBlocks, has_class_token
from tests.backbones.recorded import as_input, recorded_backbone
from tests.golden import assert_near, read_arrays


@pytest.mark.parametrize("side", [224, 128])
def test_the_last_four_are_the_recorded_ones(side: int) -> None:
    expected = read_arrays("backbones/vit_tiny_expected.npz")[f"out.last4_cls.{side}"]
    images = read_arrays("backbones/images.npz")[f"u{side}"]
    tokens = LastBlocks(recorded_backbone("vit_tiny").eval(), 4)
    with torch.no_grad():
        found = tokens(as_input(images))
    assert found.shape[1] == num_features(tokens) == 768
    assert_near(found, expected.flatten(1) if expected.ndim > 2 else expected, 1e-4)


def test_one_block_gives_the_backbones_own_features() -> None:
    backbone = build_backbone("test_vit").eval()
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(LastBlocks(backbone, 1)(images), backbone(images))


def test_networks_without_class_token_or_with_fewer_blocks_are_refused() -> None:
    assert not has_class_token(build_backbone("resnet18"))
    with pytest.raises(ValueError, match=r"linear\.last_blocks=4 needs a ViT with a class token, which ResNet is not"):
        LastBlocks(build_backbone("resnet18"), 4)
    vit = build_backbone("test_vit")
    with pytest.raises(ValueError, match=r"linear\.last_blocks=40 is more than the \d+ blocks"):
        LastBlocks(vit, 40)
