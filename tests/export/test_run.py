"""Exports from settings to a folder: what it holds, what is refused, and what stays when a file fails."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import sslight
from sslight.backbones import build_backbone
from sslight.export import files as export_files
from sslight.export import run as export_run
from sslight.export.checks.agreement import Agreement, Tolerance, check
from sslight.export.formats import weights_file
from sslight.export.task import ExportResult
from tests.export.exports import CALIBRATION, MEAN, agreed, settings_for, write_backbone

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:onnxscript", "ignore::DeprecationWarning:torch")


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


def test_a_file_that_disagrees_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_backbone(tmp_path / "backbone.safetensors")
    honest = weights_file.write_weights

    def wrong(exportable: Any, path: Path, **keywords: Any) -> None:
        other = build_backbone("test_resnet", image_size=32).eval()
        honest(replace(exportable, backbone=other), path, **keywords)

    monkeypatch.setattr(export_files, "write_weights", wrong)
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


def test_a_tolerance_of_features_is_refused_where_the_classes_count(exported: ExportResult, tmp_path: Path) -> None:
    sentence = r"tolerance\.knn=0\.5 would have no effect: with a classifier tolerance\.same_class and"
    with pytest.raises(ValueError, match=sentence):
        sslight.export_backbone(
            exported.path / "classifier.safetensors", settings_for(tmp_path, **{"tolerance.knn": 0.5})
        )


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
    honest = export_files.opened

    def opening(exportable: Any, form: str, path: Path, *, threads: int) -> Any:
        opened.extend([path] * form.startswith("onnx"))
        if len(opened) > limit:
            raise RuntimeError("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED\nno kernel")
        return honest(exportable, form, path, threads=threads)

    for module in (export_run, export_files):
        monkeypatch.setattr(module, "opened", opening)


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


def test_a_file_in_8_bits_that_is_refused_is_analyzed_in_words_and_in_figures(tmp_path: Path) -> None:
    write_backbone(tmp_path / "backbone.safetensors")
    settings = settings_for(
        tmp_path,
        format=["onnx", "onnx-int8"],
        **{"data.num_check": 16, "data.calibration": CALIBRATION, "int8.method": "minmax", "tolerance.cosine": 1.0},
    )
    with pytest.raises(ValueError, match="format=onnx-int8 disagrees") as error:
        sslight.export_backbone(tmp_path / "backbone.safetensors", settings)
    refused, kept = str(error.value).splitlines()
    content = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))
    assert set(content["files"]) == {"backbone.onnx"}
    facts = content["refused"]["onnx-int8"]
    assert facts["reason"] == refused
    found = facts["quantization"]
    assert len(found["by_layer"]) == found["num_layers"]
    assert (len(found["float_layers"]), found["accepted"]) == (found["num_layers"] // 2, False)
    assert found["by_method"]["minmax"] < found["signal_to_noise"]
    assert facts["agreement"]["cosine_mean"] < 1
    worst = list(found["by_layer"].items())[:3]
    named = ", ".join(f"{name} ({noise:.0f} dB)" for name, noise in worst)
    assert (
        f"{len(found['float_layers'])} of {found['num_layers']} layers stay in float; worst alone in 8 bits: {named}"
        in refused
    )
    assert (
        f"; export onnx-fp16, about as small as a file that is half in float: {len(found['float_layers'])} layers"
        in refused
    )
    assert kept.endswith("; export.json there has the figures of what was refused.")


def test_a_file_that_held_on_its_calibration_images_is_analyzed_when_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_backbone(tmp_path / "backbone.safetensors")

    def strict(agreement: Agreement, tolerance: Tolerance, name: str, remedy: str | None = None) -> None:
        check(agreement, replace(tolerance, cosine=2.0) if "int8" in name else tolerance, name, remedy)

    monkeypatch.setattr(export_run, "check", strict)
    data = {"data.num_check": 16, "data.calibration": CALIBRATION, "int8.method": "minmax", "tolerance.knn": 0.0}
    with pytest.raises(ValueError, match="format=onnx-int8 disagrees") as error:
        sslight.export_backbone(
            tmp_path / "backbone.safetensors", settings_for(tmp_path, format=["onnx", "onnx-int8"], **data)
        )
    found = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))["refused"]["onnx-int8"]
    quantization = found["quantization"]
    analysis = quantization["analysis"]
    assert (quantization["accepted"], quantization["float_layers"], quantization["by_layer"]) == (True, [], {})
    assert len(analysis["by_layer"]) == analysis["num_layers"]
    kept, whole = len(analysis["float_layers"]), quantization["by_method"]["minmax"]
    gain = f"with {kept} in float {whole:.0f} dB become {analysis['signal_to_noise']:.0f}"
    for part in (
        "give more calibration images",
        f"or set int8.float_layers ({gain})",
        next(iter(analysis["by_layer"])),
    ):
        assert part in str(error.value)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"backbone.onnx", "export.json"}


def test_settings_without_labels_compare_neighbours_only(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    write_backbone(tmp_path / "backbone.safetensors")
    overrides = settings_for(tmp_path, **{"data.check": str(image_folder("flat"))})
    agreement = agreed(sslight.export_backbone(tmp_path / "backbone.safetensors", overrides).files[0])
    assert (agreement.num_images, agreement.same_neighbor, agreement.same_knn_class) == (12, 1.0, None)
