"""ONNX files in 8 bits."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from sslight.backbones import BackboneInfo
from sslight.config.schema.export_settings import Int8Settings
from sslight.export.formats.onnx_file import write_onnx
from sslight.export.formats.onnx_int8 import OnnxQuantizer
from sslight.export.network import prepare
from sslight.export.task import ExportResult
from tests.export.exports import MEAN, STD, write_backbone

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the exporter


def test_the_8_bit_file_computes_in_8_bits_and_is_smaller(exported: ExportResult) -> None:
    model = onnx.load(exported.path / "classifier.int8.onnx")
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("QuantizeLinear") > 5
    assert any(tensor.data_type == onnx.TensorProto.INT8 for tensor in model.graph.initializer)
    sizes = {file.format: file.num_bytes for file in exported.files}
    assert sizes["onnx-int8"] < 0.6 * sizes["onnx"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    backbone = write_backbone(folder / "backbone.safetensors")
    info = BackboneInfo("test_resnet", 32, None, MEAN, STD)
    exportable = prepare(backbone, info, image_size=32, input="nhwc", classifier=None)
    write_onnx(exportable, folder / "float32.onnx", batch=4, opset=18, facts={})
    return folder / "float32.onnx"


def nodes(path: Path) -> list[Any]:
    return list(onnx.load(path).graph.node)


@pytest.mark.parametrize("symmetric", [False, True])
def test_onnx_layers_stay_in_float_by_name_and_symmetric_ranges_have_no_zero_points(
    symmetric: bool, source: Path, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    quantizer = OnnxQuantizer(source, images, Int8Settings(symmetric=symmetric), tmp_path)
    assert quantizer.methods == ["minmax", "percentile", "entropy"]
    assert set(quantizer.layers) == {node.name for node in nodes(source) if node.op_type == "Conv"}
    kept = quantizer.layers[2]
    for method, float_layers in (("minmax", ()), ("entropy", [kept])):
        quantizer.write(tmp_path / f"{method}.onnx", method=method, float_layers=float_layers)
    assert {path.stem for path in tmp_path.glob("*.json")} == {"minmax", "entropy"}  # ranges, for the next file
    from_8_bits = [node.output[0] for node in nodes(tmp_path / "entropy.onnx") if node.op_type == "DequantizeLinear"]
    (conv,) = [node for node in nodes(tmp_path / "entropy.onnx") if node.name == kept]
    assert not {*conv.input[1:]} & {*from_8_bits}
    model = onnx.load(tmp_path / "minmax.onnx")
    points = [onnx.numpy_helper.to_array(each) for each in model.graph.initializer if "zero_point" in each.name]
    assert ({str(each.dtype) for each in points} == {"int8"}) == symmetric
    assert all(not each.any() for each in points) == symmetric
