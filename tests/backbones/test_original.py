"""Backbones with the original's weights give the original's features, gradients and buffers."""

import pytest
import torch

from sslight.backbones import build_backbone, load_strictly, timm_name
from tests.backbones.recorded import as_input, recorded_backbone, to_timm_keys
from tests.golden import assert_near, part, read_arrays, read_json

NAMES = ["mobilenet_v2", "resnet18", "vit_tiny"]
IMAGES = read_arrays("backbones/images.npz")
SIZES = {"mobilenet_v2": [224, 128], "resnet18": [224, 128], "vit_tiny": [224, 128, 96, 64]}


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_features_are_the_recorded_ones(name: str) -> None:
    expected = read_arrays(f"backbones/{name}_expected.npz")
    for dtype, prefix, tolerance in [(torch.float64, "out64", 1e-6), (torch.float32, "out", 1e-4)]:
        backbone = recorded_backbone(name, dtype).eval()
        for size in SIZES[name]:
            with torch.no_grad():
                features = backbone(as_input(IMAGES[f"u{size}"], dtype))
            assert_near(features, expected[f"{prefix}.eval.{size}"], tolerance, f"{name} {prefix} {size} px")


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
def test_training_features_and_buffers_are_the_recorded_ones(name: str) -> None:
    expected = read_arrays(f"backbones/{name}_expected.npz")
    for size in SIZES[name]:
        backbone = recorded_backbone(name, torch.float64)
        with torch.no_grad():
            features = backbone(as_input(IMAGES[f"u{size}"], torch.float64))
        assert_near(features, expected[f"out64.train.{size}"], 1e-6, f"{name} {size} px")
    buffers = to_timm_keys(name, part(expected, "out.train.128.buffer."))
    assert buffers
    for key, buffer in backbone.named_buffers():
        assert_near(buffer, buffers.pop(key), 1e-5, key)
    assert not buffers


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_recorded_ones(name: str) -> None:
    expected = read_arrays(f"backbones/{name}_expected.npz")
    backbone = recorded_backbone(name, torch.float64)
    features = backbone(as_input(IMAGES["u128"], torch.float64))
    (features * IMAGES["cotangent"][:, : features.shape[1]]).sum().backward()
    grads = {key: p.grad for key, p in backbone.named_parameters()}
    norm = torch.stack([g.norm() for g in grads.values() if g is not None]).norm()
    assert_near(norm, expected["out64.train.128.grad_norm_all"], 1e-6, "norm of all")
    recorded = to_timm_keys(name, part(expected, "out64.train.128.grad."))
    assert recorded
    for key, value in recorded.items():
        grad = grads[key]
        assert grad is not None
        assert_near(grad, value, 1e-6, key)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "resnet34", "resnet50", "vit_tiny"])
def test_every_key_of_the_originals_checkpoints_has_its_place(name: str) -> None:
    table = read_json("checkpoints/key_tables.json")[f"dino_{name}"]["state_dict"]
    prefix = "module.student.backbone."
    state = {
        key.removeprefix(prefix): torch.zeros(shape, dtype=getattr(torch, dtype))
        for key, shape, dtype in table
        if key.startswith(prefix)
    }
    load_strictly(build_backbone(name), to_timm_keys(name, state), "the key table")


def test_timms_own_name_is_as_good() -> None:
    state = {"encoder.0.0.weight": torch.zeros(1)}
    assert list(to_timm_keys(timm_name("mobilenet_v2"), state)) == ["conv_stem.weight"]
