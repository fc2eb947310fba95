"""Backbones by name."""

import math

import pytest
import timm
import torch
from torch import nn

from sslight.backbones import build_backbone, check_image_size, num_features, patch_side, timm_name
from tests.golden import read_json


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("mobilenet_v2", 1280),
        ("resnet18", 512),
        ("resnet50", 2048),
        ("mobilenetv3_small_050", 1024),
        ("test_vit", 64),
    ],
)
def test_a_backbone_gives_as_many_features_as_it_says(name: str, length: int) -> None:
    backbone = build_backbone(name)
    assert num_features(backbone) == length
    size = 160 if name == "test_vit" else 32
    assert backbone(torch.randn(2, 3, size, size)).shape == (2, length)


def test_the_papers_names_are_aliases_of_timms() -> None:
    assert timm_name("mobilenet_v2") == "mobilenetv2_100"
    assert timm_name("vit_tiny") == "vit_tiny_patch16_224"
    assert timm_name("resnet34") == "resnet34"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"^backbone=mobilenet_v22 is not a known network.*nearest.*mobilenet_v2,"):
        build_backbone("mobilenet_v22")
    with pytest.raises(ValueError, match=r"timm\.list_models\(\)"):
        build_backbone("§§§")


def test_a_name_of_weights_is_answered_with_a_network_that_exists() -> None:
    for name in ("resnet18.a1_in1k", "timm:resnet18", "hf-hub:timm/resnet18", "hf-hub:timm/resnet18.a1_in1k"):
        with pytest.raises(ValueError, match=rf"^backbone={name} names pre-trained weights, .*: write resnet18\.$"):
            build_backbone(name)
    for unknown in ("resnet19.a1_in1k", "hf-hub:anyone/resnet19"):
        with pytest.raises(ValueError, match=r"is not a known network: the nearest names are .*resnet18"):
            build_backbone(unknown)


def test_settings_without_meaning_for_a_backbone_are_refused() -> None:
    with pytest.raises(ValueError, match="patch_size=8 has no effect on backbone=resnet18"):
        build_backbone("resnet18", patch_size=8)
    with pytest.raises(ValueError, match=r"drop_path=0\.1 has no effect on backbone=vgg11"):
        build_backbone("vgg11", drop_path=0.1)


def test_drop_path_rises_linearly_over_the_blocks() -> None:
    recorded = read_json("backbones/cases.json")["vit_drop_path_per_block_for_rate_0.1"]
    vit = build_backbone("vit_tiny", drop_path=0.1)
    blocks = [vit.get_submodule(f"blocks.{i}.drop_path1") for i in range(12)]
    rates = [getattr(block, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx(recorded, abs=1e-8)


def test_the_papers_cnns_start_as_torchvisions() -> None:
    torch.manual_seed(0)
    mobilenet = build_backbone("mobilenet_v2")
    depthwise = mobilenet.get_parameter("blocks.5.1.conv_dw.weight")
    assert float(depthwise.detach().std()) == pytest.approx(math.sqrt(2 / (depthwise.shape[0] * 9)), rel=0.05)
    resnet = build_backbone("resnet18")
    assert all((m.weight == 1).all() for m in resnet.modules() if isinstance(m, nn.BatchNorm2d))


def test_the_same_seed_gives_the_same_weights_and_checks_draw_nothing() -> None:
    def weights(check: bool) -> list[torch.Tensor]:
        torch.manual_seed(3)
        first = build_backbone("test_resnet")
        if check:
            check_image_size(first, 32, "views.global_size")
        return [*first.state_dict().values(), *build_backbone("test_resnet").state_dict().values()]

    for a, b in zip(weights(False), weights(True), strict=True):
        assert torch.equal(a, b)


def test_a_view_that_is_not_a_multiple_of_the_patch_names_the_nearest_sizes() -> None:
    vit = build_backbone("vit_tiny", image_size=64)
    check_image_size(vit, 32, "views.local_size")
    with pytest.raises(ValueError, match=r"views\.local_size=36 is not a multiple of the patch side 16.*32 and 48\."):
        check_image_size(vit, 36, "views.local_size")
    with pytest.raises(ValueError, match=r"the nearest sizes are 16\."):
        check_image_size(vit, 9, "views.local_size")


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("views.global_size", "views.global_size=224 with views.local_size=224 or views.num_local=0"),
        ("views.local_size", "views.local_size=224 or views.num_local=0"),
        ("image_size", "image_size=224"),
    ],
)
def test_a_size_that_the_network_refuses_is_answered_with_the_settings_that_fit(setting: str, remedy: str) -> None:
    levit = build_backbone("levit_128s")
    with pytest.raises(
        ValueError, match=f"^{setting}=96 does not fit the backbone LevitDistilled .*: set {remedy}, or"
    ):
        check_image_size(levit, 96, setting)
    check_image_size(levit, 224, setting)


def test_the_size_that_fits_is_the_nearest_larger_one() -> None:
    with pytest.raises(ValueError, match=r"views\.local_size=16 does not fit .*: set views\.local_size=32 or views"):
        check_image_size(build_backbone("convnext_atto"), 16, "views.local_size")


@pytest.mark.parametrize(
    ("name", "side"), [("vit_tiny", 16), ("vit_small_patch8_224", 8), ("flexivit_small", 16), ("resnet18", None)]
)
def test_the_patches_of_a_vit_are_known_from_its_name_or_else_from_the_network(name: str, side: int | None) -> None:
    assert patch_side(name) == side
    assert patch_side(name, 4) == (None if side is None else 4)


def test_networks_with_windows_take_views_of_any_size_and_keep_timms_shapes() -> None:
    swin = build_backbone("swin_tiny_patch4_window7_224", image_size=64)
    for size in (64, 36):
        check_image_size(swin, size, "views.local_size")
    plain = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0)
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in swin.state_dict().items()}


@pytest.mark.parametrize(("name", "patch"), [("vit_tiny_r_s16_p8_224", 32), ("vitamin_small_224", 16)])
def test_vits_on_the_feature_map_of_a_cnn_take_views_of_whole_patches(name: str, patch: int) -> None:
    vit = build_backbone(name, image_size=64)
    check_image_size(vit, 64, "views.global_size")
    check_image_size(vit, 32, "views.local_size")
    with pytest.raises(ValueError, match=rf"views\.local_size=36 is not a multiple of the patch side {patch} "):
        check_image_size(vit, 36, "views.local_size")
    with pytest.raises(ValueError, match=f"patch_size=8 has no effect on backbone={name}"):
        build_backbone(name, patch_size=8)


def test_checking_a_size_leaves_the_backbone_as_it_was() -> None:
    backbone = build_backbone("test_resnet")
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    check_image_size(backbone, 48, "views.global_size")
    assert backbone.training
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, before[key])
