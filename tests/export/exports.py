"""A tiny network to export, and settings for it."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from sslight.backbones import build_backbone, save_backbone
from sslight.export.checks.agreement import Agreement
from sslight.export.task import ExportedFile

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


def settings_for(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"data.check": CHECK, "output": str(folder / "out"), "runs": 3, "format": ["safetensors"], **changes}
