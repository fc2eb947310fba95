"""LiteRT files of a fine-tuned classifier, with the packages of the extra ``litert``; skipped without them."""

import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import sslight
from sslight.api.finetune_run import FinetuneResult
from sslight.backbones import BackboneInfo, load_backbone
from sslight.data import build_source, image_batches
from sslight.data.packing.parallel import map_in_order
from sslight.export.formats.litert_file import LiteRTQuantizer, LiteRTRunner, write_litert
from sslight.export.network import Exportable, prepare
from sslight.export.task import ExportResult
from tests.api.fine_tuned import fine_tuned
from tests.export.exports import agreed, settings_for, write_backbone

pytestmark = pytest.mark.filterwarnings("ignore")  # of the converter and what it brings
runtime = pytest.importorskip("ai_edge_litert.interpreter", reason="the extra litert is too large for the usual run")

SIZE = 32


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    return fine_tuned(tmp_path_factory.mktemp("stripes"))


@pytest.fixture(scope="module")
def exported(result: FinetuneResult) -> ExportResult:
    folder = result.output.parent
    return sslight.export_backbone(
        result.output,
        {"data.check": str(folder / "val"), "data.calibration": str(folder / "train")},
        format=["litert", "litert-fp16", "litert-int8"],
        probabilities=True,
        runs=3,
    )


def test_each_file_agrees_and_is_smaller_than_the_one_before(exported: ExportResult) -> None:
    assert [file.path.name for file in exported.files] == [
        "classifier.tflite",
        "classifier.fp16.tflite",
        "classifier.int8.tflite",
    ]
    float32, float16, int8 = exported.files
    assert agreed(float32).largest_difference < 1e-4 * agreed(float32).largest_output
    assert agreed(float16).largest_difference > agreed(float32).largest_difference
    assert agreed(int8).same_class == 1.0
    assert float32.num_bytes > 1.5 * float16.num_bytes > 1.5 * int8.num_bytes
    assert all(file.latency_ms[1] > 0 for file in exported.files)


def test_a_file_takes_the_bytes_of_one_image_and_computes_no_shapes(exported: ExportResult) -> None:
    for file in exported.files:
        model = runtime.Interpreter(str(file.path), num_threads=1)
        (taken,) = model.get_input_details()
        assert taken["shape_signature"].tolist() == [1, SIZE, SIZE, 3]
        assert taken["dtype"] is np.uint8
        assert model.get_signature_list()["serving_default"]["outputs"] == ["features", "logits", "probabilities"]
        assert {details["dtype"] for details in model.get_output_details()} == {np.float32}
        operators = {each["op_name"] for each in model._get_ops_details()}
        assert not {name for name in operators if name.startswith(("Flex", "SHAPE", "CUSTOM", "GATHER", "TRANSPOSE"))}
        every = [each["shape_signature"] for each in model.get_tensor_details()]
        assert all((shape >= 0).all() for shape in every)


def test_a_file_brings_its_preprocessing_and_the_names_of_its_classes(exported: ExportResult) -> None:
    with zipfile.ZipFile(exported.path / "classifier.tflite") as archive:
        assert archive.read("labels.txt").decode() == "lying\nstanding\n"
        assert '"resize_shorter_side": 32' in archive.read("sslight.json").decode()


@pytest.mark.parametrize("name", ["classifier.tflite", "classifier.fp16.tflite", "classifier.int8.tflite"])
def test_predictions_are_those_of_the_run(name: str, result: FinetuneResult, exported: ExportResult) -> None:
    images = result.output.parent / "val"
    own, other = sslight.predict(images, result.output), sslight.predict(images, exported.path / name)
    assert (other.names, other.labels, other.classes) == (own.names, own.labels, own.classes)
    before, after = (sslight.embed(images, file).features for file in (result.output, exported.path / name))
    assert torch.nn.functional.cosine_similarity(before, after).mean() > (0.98 if "int8" in name else 0.9999)


def test_a_classifier_in_8_bits_without_probabilities_runs(result: FinetuneResult, tmp_path: Path) -> None:
    folder = result.output.parent
    sets = {"data.check": str(folder / "val"), "data.calibration": str(folder / "train")}
    (file,) = sslight.export_backbone(
        result.output, sets, format="litert-int8", int8={"float_layers": 0}, output=tmp_path / "out", runs=3
    ).files
    assert agreed(file).same_class == 1.0
    model = runtime.Interpreter(str(file.path), num_threads=1)
    tensors = {each["index"]: each["dtype"] for each in model.get_tensor_details()}
    (last,) = [each for each in model._get_ops_details() if each["op_name"] == "FULLY_CONNECTED"]
    assert {tensors[at] for at in (last["inputs"][0], *last["outputs"])} == {np.int8}


def test_classifier_and_features_in_8_bits_and_in_float_run(exported: ExportResult, tmp_path: Path) -> None:
    backbone = load_backbone(exported.path.parent / "classifier.safetensors")
    info = BackboneInfo("test_resnet", SIZE, None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    exportable = prepare(backbone, info, image_size=SIZE, input="nhwc", classifier=None)
    images = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    quantizer = LiteRTQuantizer(exportable, exported.path / "classifier.tflite", images)
    expected = LiteRTRunner(exported.path / "classifier.tflite", threads=1)(images)
    *first, head, classifier = quantizer.layers
    for float_layers in ([classifier], [*first, classifier], [head], [*first, head]):
        quantizer.write(tmp_path / "file", method="minmax", float_layers=float_layers)
        for found, right in zip(LiteRTRunner(tmp_path / "file", threads=1)(images), expected, strict=True):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, right, atol=0.1 * np.abs(right).max())


def test_a_network_with_layer_norms_keeps_its_sums_in_float(tmp_path: Path) -> None:
    write_backbone(tmp_path / "backbone.safetensors", "test_convnext", size=64)
    changes = {"data.num_check": 24, "data.calibration": "synthetic:24"}
    (file,) = sslight.export_backbone(
        tmp_path / "backbone.safetensors", settings_for(tmp_path, format=["litert-int8"], **changes)
    ).files
    assert agreed(file).cosine_mean > 0.99
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"backbone.int8.tflite", "export.json"}


def test_layers_of_one_name_in_several_blocks_are_told_apart(tmp_path: Path) -> None:
    backbone = write_backbone(tmp_path / "backbone.safetensors", "mobilenetv2_035", 32)
    info = BackboneInfo("mobilenetv2_035", 32, None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    exportable = prepare(backbone, info, image_size=32, input="nhwc", classifier=None)
    write_litert(exportable, tmp_path / "float32.tflite", facts={})
    images = np.zeros((2, 32, 32, 3), np.uint8)
    quantizer = LiteRTQuantizer(exportable, tmp_path / "float32.tflite", images)
    convolutions = [each for each in backbone.modules() if isinstance(each, torch.nn.Conv2d)]
    assert len({*quantizer.layers}) == len(convolutions)


def test_a_network_that_expands_a_factor_agrees(tmp_path: Path) -> None:
    write_backbone(tmp_path / "backbone.safetensors", "mobilevitv2_050", 64)
    (file,) = sslight.export_backbone(
        tmp_path / "backbone.safetensors", settings_for(tmp_path, format="litert", **{"data.num_check": 8})
    ).files
    assert agreed(file).largest_difference < 1e-4 * agreed(file).largest_output


@pytest.mark.parametrize("size", [14, 15])  # from 7 px on: a whole factor, and 15 / 7
def test_the_nearest_pixel_is_that_of_pytorch(size: int, tmp_path: Path) -> None:
    class Enlarged(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            small = torch.nn.functional.avg_pool2d(images, 2)
            return torch.nn.functional.interpolate(small, size=images.shape[-2:], mode="nearest").flatten(1)

    info = BackboneInfo("enlarged", size, None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    exportable = Exportable(info, Enlarged(), "nhwc", None)
    write_litert(exportable, tmp_path / "file.tflite", facts={})
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    (found,) = LiteRTRunner(tmp_path / "file.tflite", threads=1)(images)
    np.testing.assert_allclose(found, exportable.network(torch.from_numpy(images)).numpy(), atol=1e-5)


@pytest.mark.usefixtures("exported")
@pytest.mark.parametrize("forking", ["loader", "packing"])
def test_images_are_read_by_processes_after_a_conversion(forking: str) -> None:
    source = build_source(["synthetic:24"], labeled=False)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if forking == "loader":
            batches = image_batches(source, size=SIZE, batch_size=8, workers=2)
            assert sum(len(images) for images, _, _ in batches) == 24
        else:
            assert len([*map_in_order(source.read, range(24), workers=2)]) == 24
    assert [str(each.message) for each in said if "fork" in str(each.message)] == []


def test_a_file_of_another_kind_ends_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.tflite").write_text("text", encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path}/text.tflite cannot be opened by ai-edge-litert")):
        sslight.predict("synthetic:2", tmp_path / "text.tflite")


def test_a_layer_stays_in_float_by_its_name(exported: ExportResult, tmp_path: Path) -> None:
    backbone, source = (
        load_backbone(exported.path.parent / "classifier.safetensors"),
        exported.path / "classifier.tflite",
    )
    info = BackboneInfo("test_resnet", SIZE, None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    exportable = prepare(backbone, info, image_size=SIZE, input="nhwc", classifier=None)
    images = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    quantizer = LiteRTQuantizer(exportable, source, images)
    kept = quantizer.layers[1]
    types = {}
    for name, float_layers in (("whole", ()), ("mixed", [kept])):
        quantizer.write(tmp_path / name, method="minmax", float_layers=float_layers)
        details = runtime.Interpreter(str(tmp_path / name)).get_tensor_details()
        types[name] = [each["dtype"] for each in details if each["name"].rstrip(";").endswith(kept)]
    assert np.float32 not in types["whole"]
    assert np.float32 in types["mixed"]
    assert (tmp_path / "whole").stat().st_size < (tmp_path / "mixed").stat().st_size
