"""An export that several files of tests look at."""

import warnings

import pytest

import sslight
from sslight.export.task import ExportResult
from tests.export.exports import CALIBRATION, CHECK, write_backbone


@pytest.fixture(scope="session")
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the exporter
        return sslight.export_backbone(
            folder / "backbone.safetensors",
            {"data.check": CHECK, "data.calibration": CALIBRATION, "tolerance.same_class": 0.5},
            format=["safetensors", "onnx", "onnx-fp16", "onnx-int8"],
            classifier=folder / "linear",
            output=folder / "out",
            runs=3,
        )
