"""Weights under the names of timm and torchvision."""

from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

import sslight
from sslight.backbones import load_backbone
from sslight.export.task import ExportResult
from tests.export.exports import agreed, settings_for, write_backbone


def test_timm_loads_the_weights_with_their_classifier(exported: ExportResult) -> None:
    path = exported.path / "classifier.safetensors"
    model = timm.create_model("test_resnet", num_classes=10, checkpoint_path=str(path)).eval()
    features = torch.randn(3, model.num_features)
    classifier = model.get_classifier()
    folder = exported.path.parent / "linear"
    fitted = safetensors.torch.load_file(folder / "classifier.safetensors")
    expected = ((features - fitted["mean"]) / fitted["std"]) @ fitted["weight"].T + fitted["bias"]
    torch.testing.assert_close(classifier(features), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
def test_torchvision_and_timm_give_the_same_features(name: str, tmp_path: Path) -> None:
    backbone = write_backbone(tmp_path / "backbone.safetensors", name)
    overrides = settings_for(tmp_path, **{"data.num_check": 8, "format": ["safetensors", "torchvision"]})
    result = sslight.export_backbone(tmp_path / "backbone.safetensors", overrides)
    assert [agreed(file).same_neighbor for file in result.files] == [1.0, 1.0]
    again = load_backbone(result.path / "backbone.torchvision.safetensors")
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(again(x), backbone(x))
    with pytest.raises(RuntimeError, match="Missing key"):  # timm is strict: a headless file needs num_classes=0
        timm.create_model(
            {"mobilenet_v2": "mobilenetv2_100"}.get(name, name),
            checkpoint_path=str(result.path / "backbone.safetensors"),
        )


def test_a_vit_is_exported_for_another_size_as_it_computes_there(tmp_path: Path) -> None:
    write_backbone(tmp_path / "backbone.safetensors", "test_vit", size=160)
    overrides = settings_for(tmp_path, **{"data.num_check": 8, "image_size": 96})
    result = sslight.export_backbone(tmp_path / "backbone.safetensors", overrides)
    x = torch.randn(2, 3, 96, 96)
    model = timm.create_model(
        "test_vit",
        num_classes=0,
        img_size=96,
        patch_size=16,
        checkpoint_path=str(result.path / "backbone.safetensors"),
    ).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(x), load_backbone(tmp_path / "backbone.safetensors")(x))
