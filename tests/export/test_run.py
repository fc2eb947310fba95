"""Exports of a tiny network in every form that the default packages can write, on drawn images."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import timm
import torch
import yaml
from torch import nn

import sslight
from sslight.backbones import BackboneInfo, build_backbone, load_backbone, save_backbone
from sslight.data import build_source
from sslight.export import run as export_run
from sslight.export.checks.agreement import Agreement
from sslight.export.formats import weights_file
from sslight.export.network import prepare
from sslight.export.task import ExportedFile, ExportResult

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:onnxscript", "ignore::DeprecationWarning:torch")

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.21, 0.22)
CHECK, CALIBRATION = "synthetic:60:val", "synthetic:24"


def write_backbone(path: Path, name: str = "test_resnet", size: int = 32) -> nn.Module:
    """A network whose batch-norm statistics are not those of a new one."""
    torch.manual_seed(0)
    backbone = build_backbone(name, image_size=size)
    with torch.no_grad():
        backbone(torch.randn(16, 3, size, size))
    save_backbone(backbone, path, name=name, image_size=size, patch_size=None, mean=MEAN, std=STD)
    return backbone.eval()


def agreed(file: ExportedFile) -> Agreement:
    assert file.agreement is not None
    return file.agreement


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """A backbone with the classifier of a linear evaluation, as weights and as ONNX, in float32 and in 8 bits."""
    folder = tmp_path_factory.mktemp("export")
    write_backbone(folder / "backbone.safetensors")
    data = {"train": "synthetic:60", "val": "synthetic:30:val"}
    sslight.evaluate_backbone(
        "linear",
        folder / "backbone.safetensors",
        data=data,
        linear={"mode": "fast"},
        output=folder / "linear",
        cache=folder / "cache",
        devices="cpu",
    )
    return sslight.export_backbone(
        folder / "backbone.safetensors",
        {"data.check": CHECK, "data.calibration": CALIBRATION, "tolerance.same_class": 0.5},
        format=["safetensors", "onnx", "onnx-fp16", "onnx-int8"],
        classifier=folder / "linear",
        output=folder / "out",
        runs=3,
    )


def test_the_folder_holds_the_files_and_what_was_measured(exported: ExportResult) -> None:
    names = {"classifier.safetensors", "classifier.onnx", "classifier.fp16.onnx", "classifier.int8.onnx"}
    assert {path.name for path in exported.path.iterdir()} == names | {"export.json"}
    content = json.loads((exported.path / "export.json").read_text(encoding="utf-8"))
    assert set(content["files"]) == names
    assert content["preprocessing"]["mean"] == list(MEAN)
    taken = {"shape": [1, 32, 32, 3], "dtype": "uint8", "normalised_inside": True}
    assert content["preprocessing"].items() >= taken.items()
    assert content["files"]["classifier.onnx"]["input"] == content["files"]["classifier.int8.onnx"]["input"] == taken
    assert content["check"]["num_images"] == 60
    assert content["check"]["classes"] == content["classes"]
    for file in content["files"].values():
        assert file["latency_ms"]["1"] > 0
    float32 = content["files"]["classifier.onnx"]["agreement"]
    assert float32["same_class"] == float32["same_knn_class"] == 1.0
    assert float32["knn_top1_before"] == float32["knn_top1_after"]
    assert (float32["accuracy"]["value"], float32["num_labeled"]) == (0.0, 60)
    assert content["files"]["classifier.int8.onnx"]["agreement"]["largest_difference"] > 1e-3


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


@pytest.mark.parametrize("name", ["mobileone_s0", "repghostnet_050"])
def test_branches_are_fused_for_a_device_and_the_network_stays_as_it_was(name: str, tmp_path: Path) -> None:
    backbone = write_backbone(tmp_path / "backbone.safetensors", name)
    info = BackboneInfo(name, 32, None, MEAN, STD)
    exportable = prepare(backbone, info, image_size=32, input="normalized", classifier=None)
    fused = exportable.fused()
    sizes = [sum(parameter.numel() for parameter in net.parameters()) for net in (exportable.network, fused)]
    assert sizes[1] < sizes[0]
    images = torch.randn(2, 3, 32, 32)
    expected = exportable.network(images)
    assert (fused(images) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_the_8_bit_file_computes_in_8_bits_and_is_smaller(exported: ExportResult) -> None:
    model = onnx.load(exported.path / "classifier.int8.onnx")
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("QuantizeLinear") > 5
    assert any(tensor.data_type == onnx.TensorProto.INT8 for tensor in model.graph.initializer)
    sizes = {file.format: file.num_bytes for file in exported.files}
    assert sizes["onnx-int8"] < 0.6 * sizes["onnx"]


def test_timm_loads_the_weights_with_their_classifier(exported: ExportResult) -> None:
    path = exported.path / "classifier.safetensors"
    model = timm.create_model("test_resnet", num_classes=10, checkpoint_path=str(path)).eval()
    features = torch.randn(3, model.num_features)
    classifier = model.get_classifier()
    folder = exported.path.parent / "linear"
    fitted = safetensors.torch.load_file(folder / "classifier.safetensors")
    expected = ((features - fitted["mean"]) / fitted["std"]) @ fitted["weight"].T + fitted["bias"]
    torch.testing.assert_close(classifier(features), expected, rtol=1e-3, atol=1e-3)


def settings_for(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"data.check": CHECK, "output": str(folder / "out"), "runs": 3, "format": ["safetensors"], **changes}


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


def test_a_file_that_disagrees_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_backbone(tmp_path / "backbone.safetensors")
    honest = weights_file.write_weights

    def wrong(exportable: Any, path: Path, **keywords: Any) -> None:
        other = build_backbone("test_resnet", image_size=32).eval()
        honest(replace(exportable, backbone=other), path, **keywords)

    monkeypatch.setattr(export_run, "write_weights", wrong)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"format=safetensors disagrees .* on 60 images .* cosine"):
        sslight.export_backbone(tmp_path / "backbone.safetensors", settings_for(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_second_export_of_the_same_weights_gets_a_new_folder(tmp_path: Path) -> None:
    write_backbone(tmp_path / "backbone.safetensors")
    settings = settings_for(tmp_path) | {"output": None}
    folders = [sslight.export_backbone(tmp_path / "backbone.safetensors", settings).path for _ in range(3)]
    assert [folder.name for folder in folders] == ["export", "export-2", "export-3"]
    assert all((folder / "export.json").is_file() for folder in folders)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data.check": []}, "data.check is not set"),
        ({"data.check": "{tmp}/none"}, "data.check={tmp}/none does not exist"),
        ({"format": "onnx-int8"}, "data.calibration is not set: format=onnx-int8 needs images"),
        ({"format": "torchvision"}, "torchvision does not have backbone=test_resnet"),
        ({"format": "tflite"}, "format=tflite: input should be"),
        ({"output": "{tmp}"}, "exists and is not overwritten: choose another folder"),
        ({"data.calibration": "x"}, "data.calibration=x would have no effect: nothing is quantized"),
        ({"input": "nchw"}, "input=nchw would have no effect: no file that takes arrays is in format"),
        ({"batch": 4}, "batch=4 would have no effect: it is of ONNX files, and none is in format"),
        ({"batch": "any"}, "batch=any: input should be"),
        ({"format": "onnx", "opset": 17}, "opset=17"),
        ({"format": "onnx", "int8.float_layers": 2}, "int8.float_layers=2 would have no effect: it is of onnx-int8"),
        ({"license": "mit"}, "license=mit would have no effect: it is of format=timm"),
        ({"classifier": "{tmp}"}, "has no classifier.safetensors"),
        (
            {"tolerance.accuracy": 2},
            "tolerance.accuracy=2 would have no effect: without a classifier tolerance.cosine and tolerance.knn count",
        ),
        ({"resize": 16}, "resize=16 is smaller than the image size 32"),
        ({"format": "onnx", "lib": "onnxscript"}, "needs the package onnxscript, which is not installed: pip install"),
        ({"format": "litert", "lib": "litert_torch"}, "needs the package litert-torch, which is not installed: pip"),
        ({"format": "litert-int8", "data.calibration": []}, "data.calibration is not set: format=litert-int8 needs"),
        (
            {"format": ["onnx", "litert-int8"], "data.calibration": "x", "int8.method": "entropy"},
            "int8.method=entropy would have no effect: it is of onnx-int8, which is not in format",
        ),
        (
            {"format": "onnx-int8", "data.calibration": "x", "int8.method": "entropy", "int8.percentile": 99.0},
            "int8.percentile=99.0 would have no effect: int8.method=entropy",
        ),
        ({"format": "executorch", "lib": "executorch.runtime"}, "needs the package executorch"),
    ],
)
def test_a_wrong_input_is_refused_before_any_work(
    changes: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_backbone(tmp_path / "backbone.safetensors")
    if "lib" in changes:
        monkeypatch.setitem(sys.modules, changes["lib"], None)
    filled = {
        key: value.replace("{tmp}", str(tmp_path)) if isinstance(value, str) else value
        for key, value in changes.items()
        if key != "lib"
    }
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the text is looked at below
        sslight.export_backbone(tmp_path / "backbone.safetensors", settings_for(tmp_path, **filled))
    assert sentence.replace("{tmp}", str(tmp_path)) in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


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


def test_a_tolerance_of_features_is_refused_where_the_classes_count(exported: ExportResult, tmp_path: Path) -> None:
    sentence = r"tolerance\.knn=0\.5 would have no effect: with a classifier tolerance\.same_class and"
    with pytest.raises(ValueError, match=sentence):
        sslight.export_backbone(
            exported.path / "classifier.safetensors", settings_for(tmp_path, **{"tolerance.knn": 0.5})
        )


@pytest.mark.filterwarnings("ignore")  # of the libraries
def test_executorch_agrees_too(tmp_path: Path) -> None:
    pytest.importorskip("executorch", reason="the extra executorch is too large for the default tests")
    write_backbone(tmp_path / "backbone.safetensors")
    changes = {"data.num_check": 24, "data.calibration": CALIBRATION, "tolerance.knn": 0.3}
    overrides = settings_for(tmp_path, format=["executorch", "executorch-int8"], **changes)
    float32, int8 = sslight.export_backbone(tmp_path / "backbone.safetensors", overrides).files
    assert [file.path.name for file in (float32, int8)] == ["backbone.pte", "backbone.int8.pte"]
    assert agreed(float32).cosine_min > 0.9999
    assert agreed(int8).cosine_mean > 0.98
    assert int8.num_bytes < 0.5 * float32.num_bytes
    own = sslight.embed("synthetic:4", tmp_path / "backbone.safetensors").features
    torch.testing.assert_close(sslight.embed("synthetic:4", float32.path).features, own, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore")  # of the libraries
def test_core_ml_is_written_for_an_image_and_says_what_it_is(tmp_path: Path) -> None:
    coreml = pytest.importorskip("coremltools", reason="the extra coreml is not in the default tests")
    write_backbone(tmp_path / "backbone.safetensors")
    overrides = settings_for(tmp_path, format=["coreml"], **{"data.num_check": 4})
    (file,) = sslight.export_backbone(tmp_path / "backbone.safetensors", overrides).files
    assert (file.path.name, file.agreement, file.latency_ms) == ("backbone.mlpackage", None, {})
    weights = sum(parameter.numel() for parameter in load_backbone(tmp_path / "backbone.safetensors").parameters())
    assert 2 * weights < file.num_bytes < 3 * weights  # float16
    description = coreml.models.MLModel(str(file.path), skip_model_load=True).get_spec().description
    assert json.loads(description.metadata.userDefined["sslight"])["backbone"] == "test_resnet"
    assert description.input[0].type.imageType.width == 32


def test_openvino_reads_the_onnx_file(exported: ExportResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)  # at import it forks, to report that to its makers
    openvino = pytest.importorskip("openvino", reason="it is no dependency; the page on exports names it")
    path = exported.path / "classifier.onnx"
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    found = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images)["logits"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(found, session.run(["logits"], {"images": images})[0], rtol=1e-3, atol=1e-3)


def test_a_converter_that_stops_is_said_and_the_good_files_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_backbone(tmp_path / "backbone.safetensors")

    def stopping(*args: Any, **keywords: Any) -> None:
        raise RuntimeError("no operator\nfor this")

    monkeypatch.setattr(torch.onnx, "export", stopping)
    sentence = r"^format=onnx cannot be written, its library failed with RuntimeError \(no operator for this\): export"
    with pytest.raises(ValueError, match=sentence):
        sslight.export_backbone(
            tmp_path / "backbone.safetensors", settings_for(tmp_path, format=["onnx", "safetensors"])
        )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"backbone.safetensors", "export.json"}


def fail_to_open_from(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """ONNX Runtime that fails from the n-th opening on."""
    opened = list[Path]()
    honest = export_run._open

    def opening(exportable: Any, form: str, path: Path, *, threads: int) -> Any:
        opened.extend([path] * form.startswith("onnx"))
        if len(opened) > limit:
            raise RuntimeError("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED\nno kernel")
        return honest(exportable, form, path, threads=threads)

    monkeypatch.setattr(export_run, "_open", opening)


@pytest.mark.parametrize(("form", "limit"), [("onnx", 0), ("onnx", 1), ("onnx-int8", 0)])
def test_a_file_that_cannot_be_run_is_said_and_the_good_files_stay(
    form: str, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_backbone(tmp_path / "backbone.safetensors")
    fail_to_open_from(monkeypatch, limit)
    sentence = rf"^format={form} cannot be run, its runtime failed with RuntimeError \(\[ONNXRunt.* no kernel\)"
    data = {"data.num_check": 8} | ({"data.calibration": CALIBRATION} if form == "onnx-int8" else {})
    with pytest.raises(
        ValueError, match=rf"{sentence}: export another format(.|\n)*backbone.safetensors agreed and is"
    ):
        sslight.export_backbone(
            tmp_path / "backbone.safetensors", settings_for(tmp_path, format=["safetensors", form], **data)
        )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"backbone.safetensors", "export.json"}


def test_settings_without_labels_compare_neighbours_only(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    write_backbone(tmp_path / "backbone.safetensors")
    overrides = settings_for(tmp_path, **{"data.check": str(image_folder("flat"))})
    agreement = agreed(sslight.export_backbone(tmp_path / "backbone.safetensors", overrides).files[0])
    assert (agreement.num_images, agreement.same_neighbor, agreement.same_knn_class) == (12, 1.0, None)


def test_half_precision_is_half_the_size_and_takes_and_gives_the_same(exported: ExportResult) -> None:
    sizes = {file.format: file.num_bytes for file in exported.files}
    assert sizes["onnx-fp16"] < 0.6 * sizes["onnx"]
    session = onnxruntime.InferenceSession(exported.path / "classifier.fp16.onnx", providers=["CPUExecutionProvider"])
    assert [each.type for each in (*session.get_inputs(), *session.get_outputs())] == [
        "tensor(uint8)",
        "tensor(float)",
        "tensor(float)",
    ]


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
        with pytest.raises(ValueError, match="the classifier has layers of the projection head"):
            sslight.export_backbone(folder, settings_for(tmp_path, output=str(tmp_path / "again")))


def test_a_timm_folder_has_what_a_hub_asks_for_and_opens_as_it_is(exported: ExportResult, tmp_path: Path) -> None:
    run = tmp_path / "secret-place" / "first"
    run.mkdir(parents=True)
    shutil.copy(exported.path.parent / "backbone.safetensors", run)
    (run / "config.yaml").write_text(
        "method: dino\nepochs: 3\ndata:\n  train: [/secret-place/leaves]\n", encoding="utf-8"
    )
    measured = json.loads((exported.path.parent / "linear" / "results.json").read_text(encoding="utf-8"))
    ours = measured["checkpoint"]["weights_sha256"]
    for name, weights in (("ours", ours), ("of other weights", "0"), ("semi", ours)):
        content = {**measured, "protocol": name, "checkpoint": {"weights_sha256": weights}}
        (run / "evaluation" / name).mkdir(parents=True)
        (run / "evaluation" / name / "results.json").write_text(json.dumps(content), encoding="utf-8")
    overrides = settings_for(run, format="timm", classifier=str(exported.path.parent / "linear"), license="mit")
    (file,) = sslight.export_backbone(run / "backbone.safetensors", overrides).files
    assert agreed(file).largest_difference < 1e-4 * agreed(file).largest_output
    assert {path.name for path in file.path.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    model = timm.create_model(f"local-dir:{file.path}", pretrained=True)
    assert (model.num_classes, len(model.pretrained_cfg["label_names"])) == (10, 10)
    data = timm.data.resolve_model_data_config(model)
    assert tuple([*data[key]] for key in ("input_size", "mean", "std")) == ([3, 32, 32], [*MEAN], [*STD])
    card = (file.path / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---")[1])
    assert (front["license"], front["library_name"]) == ("mit", "timm")
    assert "| epochs | 3 |" in card
    assert "- `data.train` of pre-training: leaves" in card
    assert "pre-trained with sslight, with a linear classifier of 10 classes" in card
    assert f"| ours | synthetic:30:val | {measured['transform']['image_size']} | 30 |" in card
    assert "of other weights" not in card
    assert "| semi |" not in card  # of another classifier
    for size, resize in ((64, 93), (96, 110), (224, 256)):
        shorter = timm.data.create_transform((3, size, size), crop_pct=size / (resize + 1e-6)).transforms[0].size
        assert shorter in (resize, (resize, resize))
    assert "secret-place" not in card


def test_the_card_of_a_fine_tuned_classifier_tells_of_both_trainings(exported: ExportResult, tmp_path: Path) -> None:
    first = tmp_path / "secret-place" / "first"
    first.mkdir(parents=True)
    shutil.copy(exported.path.parent / "backbone.safetensors", first)
    (first / "config.yaml").write_text("method: dino\nepochs: 3\ndata:\n  train: [leaves]\n", encoding="utf-8")
    classifier = tmp_path / "classifier"
    sets = {"data.train": "synthetic:40", "data.val": "synthetic:20:val", "devices": "cpu", "logger": "none"}
    sslight.finetune(first, sets, epochs=2, batch_size=20, holdout=0.2, output=classifier)
    license = 'our own: no use #1 "yet"\n---\nno'
    overrides = settings_for(classifier, format="timm", license=license, **{"data.check": "synthetic:16:val"})
    (file,) = sslight.export_backbone(classifier, overrides).files
    card = (file.path / "README.md").read_text(encoding="utf-8")
    start, front, text = card.split("\n---\n")[0], *card.removeprefix("---\n").split("\n---\n")
    assert start.startswith("---\n")
    assert yaml.safe_load(front)["license"] == license
    assert "self-supervised-learning" in yaml.safe_load(front)["tags"]
    assert text.splitlines()[1].endswith(", fine-tuned with sslight for 10 classes")
    tuned, pretrained = text.index("Fine-tuning (classifier):"), text.index("Pre-training without labels (first):")
    assert tuned < text.index("| epochs | 2 |") < pretrained < text.index("| epochs | 3 |")
    assert tuned < text.index("| model | first |") < text.index("| chosen_epoch |") < pretrained
    assert text.index("- `data.train` of fine-tuning: synthetic:40") < text.index(
        "- `data.train` of pre-training: leaves"
    )
    assert "| finetune | synthetic:20:val |" in text
    assert "secret-place" not in card


def test_a_card_names_no_training_that_its_weights_did_not_have(exported: ExportResult, tmp_path: Path) -> None:
    shutil.copy(exported.path.parent / "backbone.safetensors", tmp_path)
    (file,) = sslight.export_backbone(tmp_path / "backbone.safetensors", settings_for(tmp_path, format="timm")).files
    card = (file.path / "README.md").read_text(encoding="utf-8")
    assert ", exported by sslight\n" in card
    assert "self-supervised-learning" not in card


def test_a_card_follows_folders_only_and_shows_no_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = "init_from: timm:resnet18\n"
    train = "data:\n  train: ['https://host/secret/{0..9}.tar?X-Signature=SECRET']\n"
    (tmp_path / "config.yaml").write_text(f"method: dino\nepochs: 3\n{named}{train}", encoding="utf-8")
    write_backbone(tmp_path / "backbone.safetensors")
    monkeypatch.chdir(tmp_path)
    (file,) = sslight.export_backbone("backbone.safetensors", settings_for(Path(), format="timm")).files
    card = (file.path / "README.md").read_text(encoding="utf-8")
    assert card.count(f"Pre-training without labels ({tmp_path.name}):") == card.count("Pre-training without") == 1
    assert "- `data.train` of pre-training: {0..9}.tar\n" in card
    assert "SECRET" not in card
