"""Position embeddings at other sizes, and the ViT as an ordinary module."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from sslight.backbones import build_backbone
from sslight.backbones.vit import MultiSizeVisionTransformer, resize_position_embedding
from tests.golden import read_arrays


def test_the_native_grid_keeps_the_embedding_itself() -> None:
    embedding = torch.randn(1, 17, 6)
    same = resize_position_embedding(embedding, native_grid=(4, 4), grid=(4, 4), num_prefix_tokens=1)
    assert same is embedding


@pytest.mark.parametrize(("grid", "num_prefix"), [((8, 8), 1), ((2, 2), 0), ((6, 3), 2)])
def test_other_grids_are_resized_with_the_originals_scale_factor(grid: tuple[int, int], num_prefix: int) -> None:
    embedding = torch.randn(1, num_prefix + 14 * 14, 5)
    resized = resize_position_embedding(embedding, native_grid=(14, 14), grid=grid, num_prefix_tokens=num_prefix)
    plane = embedding[:, num_prefix:].reshape(1, 14, 14, 5).permute(0, 3, 1, 2)
    expected = F.interpolate(plane, scale_factor=((grid[0] + 0.1) / 14, (grid[1] + 0.1) / 14), mode="bicubic")
    assert resized.shape == (1, num_prefix + grid[0] * grid[1], 5)
    assert torch.equal(resized[:, :num_prefix], embedding[:, :num_prefix])
    torch.testing.assert_close(resized[0, num_prefix:].T.reshape(5, *grid), expected[0])
    by_size = F.interpolate(plane, size=grid, mode="bicubic")
    assert (resized[0, num_prefix:].T.reshape(5, *grid) - by_size[0]).abs().max() > 0.05


def test_a_vit_takes_both_view_sizes_and_any_native_size() -> None:
    vit = build_backbone("vit_tiny", image_size=64, patch_size=8)
    assert vit.pos_embed.shape == (1, 1 + 8 * 8, 192)
    for size in (64, 40):
        assert vit(torch.zeros(2, 3, size, size)).shape == (2, 192)


def test_deep_copies_and_pickles_of_a_vit_are_independent_and_equal() -> None:
    vit = build_backbone("test_vit").eval()
    assert isinstance(vit, MultiSizeVisionTransformer)
    x = torch.randn(1, 3, 64, 64)
    before = vit(x)
    copies = [copy.deepcopy(vit), pickle.loads(pickle.dumps(vit))]
    with torch.no_grad():
        vit.pos_embed.add_(1.0)
    for other in copies:
        assert isinstance(other, MultiSizeVisionTransformer)
        assert torch.equal(other(x), before)
    assert not torch.equal(vit(x), before)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_vit2", "deit3_small_patch16_224"])
def test_at_the_native_size_a_vit_is_timms(name: str) -> None:
    import timm

    vit = build_backbone(name).eval()
    plain = timm.create_model(name, num_classes=0).eval()
    plain.load_state_dict(vit.state_dict())
    size = plain.patch_embed.img_size[0]
    x = torch.randn(1, 3, size, size)
    torch.testing.assert_close(vit(x), plain(x))


def test_the_class_token_starts_as_the_originals_and_nothing_else_is_drawn_anew() -> None:
    import timm

    torch.manual_seed(0)
    ours = build_backbone("vit_tiny").state_dict()
    after = torch.rand(1)
    torch.manual_seed(0)
    timms = timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict()
    assert torch.equal(torch.rand(1), after)
    assert {key for key, value in ours.items() if not torch.equal(value, timms[key])} == {"cls_token"}
    recorded = read_arrays("backbones/vit_tiny_weights.npz")["cls_token"]
    assert float(ours["cls_token"].std()) == pytest.approx(float(recorded.std()), rel=0.15)
