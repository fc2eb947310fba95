"""ONNX files in float32 and float16, in ONNX Runtime and OpenVINO."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import sslight
from sslight.backbones import load_backbone
from sslight.export.task import ExportResult
from tests.export.exports import MEAN, STD, settings_for

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:onnxscript", "ignore::DeprecationWarning:torch")


@pytest.mark.parametrize("number", [1, 5])
def test_onnx_takes_bytes_of_images_and_names_the_classes(number: int, exported: ExportResult, tmp_path: Path) -> None:
    path, batch, opset = exported.path / "classifier.onnx", 1, 18
    backbone = load_backbone(exported.path / "classifier.safetensors")
    if number > 1:  # any number is had on request
        batch, opset, path = "dynamic", 20, tmp_path / "any.onnx"  # type: ignore[assignment]
        result = sslight.export_backbone(
            exported.path / "classifier.safetensors",
            settings_for(tmp_path, format="onnx", batch=batch, opset=opset, **{"data.num_check": 8}),
        )
        path = result.files[0].path
        assert result.content["files"]["classifier.onnx"]["batch"] == "dynamic"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [32, 32, 3]
    assert (session.get_inputs()[0].shape[0] == 1) == (batch == 1)
    said = json.loads(session.get_modelmeta().custom_metadata_map["sslight"])["preprocessing"]["shape"]
    assert said == [1 if batch == 1 else "batch", 32, 32, 3]
    images = np.random.default_rng(number).integers(0, 256, (number, 32, 32, 3), dtype=np.uint8)
    features, logits = session.run(["features", "logits"], {"images": images})
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(
        STD
    ).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(features), backbone(x), rtol=1e-3, atol=1e-4)
    assert logits.shape == (number, 10)
    assert len(json.loads(session.get_modelmeta().custom_metadata_map["classes"])) == 10
    model = onnx.load(path)
    assert [each.version for each in model.opset_import if not each.domain] == [opset]
    computed = {node.op_type for node in model.graph.node}
    assert not computed & {"Shape", "Range", "Gather", "GatherND", "Expand", "Slice"}  # accelerators refuse these


def test_half_precision_is_half_the_size_and_takes_and_gives_the_same(exported: ExportResult) -> None:
    sizes = {file.format: file.num_bytes for file in exported.files}
    assert sizes["onnx-fp16"] < 0.6 * sizes["onnx"]
    session = onnxruntime.InferenceSession(exported.path / "classifier.fp16.onnx", providers=["CPUExecutionProvider"])
    assert [each.type for each in (*session.get_inputs(), *session.get_outputs())] == [
        "tensor(uint8)",
        "tensor(float)",
        "tensor(float)",
    ]


def test_openvino_reads_the_onnx_file(exported: ExportResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)  # at import it forks, to report that to its makers
    openvino = pytest.importorskip("openvino", reason="it is no dependency; the page on exports names it")
    path = exported.path / "classifier.onnx"
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    found = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images)["logits"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(found, session.run(["logits"], {"images": images})[0], rtol=1e-3, atol=1e-3)
