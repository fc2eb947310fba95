"""Classifiers of evaluations as part of an export."""

from pathlib import Path

import numpy as np
import pytest
import torch

import sslight
from sslight.backbones import build_backbone, save_backbone
from sslight.data import build_source
from sslight.export.task import ExportResult
from tests.export.exports import MEAN, STD, agreed, settings_for

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:onnxscript", "ignore::DeprecationWarning:torch")


def test_a_classifier_of_another_backbone_is_refused(exported: ExportResult, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = build_backbone("test_resnet", image_size=32)
    save_backbone(
        other, tmp_path / "b.safetensors", name="test_resnet", image_size=32, patch_size=None, mean=MEAN, std=STD
    )
    with pytest.raises(ValueError, match="trained on the features of another backbone"):
        sslight.export_backbone(
            tmp_path / "b.safetensors", settings_for(tmp_path, classifier=str(exported.path.parent / "linear"))
        )


@pytest.mark.parametrize("head", ["projection", pytest.param("linear", marks=pytest.mark.slow)])
def test_a_semi_supervised_result_is_exported_with_its_own_backbone(head: str, tmp_path: Path) -> None:
    run, small = tmp_path / "run", {"views.global_size": 32, "views.local_size": 32, "views.num_local": 1}
    sslight.pretrain(
        "dino_cnn_sslight_64",
        {"data.train": "synthetic:32", "logger": "none", "probe.knn": False, **small},
        dino={"head_hidden_dim": 32, "head_output_dim": 32},
        backbone="test_resnet",
        output=run,
        steps=1,
        batch_size=16,
        devices="cpu",
        workers=0,
    )
    result = sslight.evaluate_backbone(
        "semi",
        run / "checkpoints" / "last.pt",
        data={"train": "synthetic:40", "val": "synthetic:20:val"},
        semi={"head": head, "epochs": 1, "batch_size": 20},
        devices="cpu",
    )
    assert result is not None
    folder = result.path.parent
    forms = ["onnx"] if head == "projection" else ["safetensors", "onnx"]
    model, more = (run, {"classifier": folder}) if head == "projection" else (folder, {})
    found = sslight.export_backbone(model, settings_for(tmp_path, format=forms, **{"data.num_check": 20, **more}))
    assert [agreed(file).same_class for file in found.files] == [1.0] * len(forms)
    source = build_source(["synthetic:20:val"], labeled=True, setting="images")
    predicted = sslight.predict("synthetic:20:val", found.files[-1].path)
    right = [source.classes[label] == said for label, said in zip(source.labels, predicted.labels, strict=True)]  # type: ignore[index, arg-type]
    assert 100 * np.mean(right) == pytest.approx(result.accuracy.top1)
    if head == "projection":
        remedy = "semi.head=linear, or export format=onnx, onnx-fp16, onnx-int8, litert, .*, executorch-int8 or coreml"
        with pytest.raises(ValueError, match=f"the classifier has layers of the projection head.*{remedy}"):
            sslight.export_backbone(folder, settings_for(tmp_path, output=str(tmp_path / "again")))
