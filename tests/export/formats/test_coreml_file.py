"""Core ML packages, as far as they can be looked at here; skipped without the extra ``coreml``."""

import json
from pathlib import Path

import pytest

import sslight
from sslight.backbones import load_backbone
from tests.export.exports import settings_for, write_backbone


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
