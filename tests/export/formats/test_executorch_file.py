"""ExecuTorch programs; skipped without the extra ``executorch``."""

from pathlib import Path

import pytest
import torch

import sslight
from tests.export.exports import CALIBRATION, agreed, settings_for, write_backbone


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
