"""One export that is ready to run, and what was done."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslight.config import ExportSettings
from sslight.export.agreement import Agreement
from sslight.export.images import ExportImages
from sslight.export.network import Exportable


@dataclass(frozen=True)
class Task:
    """What is exported, on which images it is checked, and where it goes.

    ``calibration`` is None without quantisation; ``resize`` is the shorter side in px before the centre is
    cut, None for the usual one; ``weights_sha256`` is the fingerprint of the backbone as it was read.
    """

    settings: ExportSettings
    exportable: Exportable
    images: ExportImages
    calibration: ExportImages | None
    resize: int | None
    output: Path
    weights_sha256: str


@dataclass(frozen=True)
class ExportedFile:
    """One file of an export.

    Attributes:
        format: As in the setting.
        path: Where it is.
        num_bytes: Its size.
        agreement: With the PyTorch network, on data.check.
        latency_ms: Number of threads → median time of one image.
        pytorch_latency_ms: The PyTorch network's (float32, eager), measured in turn with it.
    """

    format: str
    path: Path
    num_bytes: int
    agreement: Agreement
    latency_ms: dict[int, float]
    pytorch_latency_ms: dict[int, float]


@dataclass(frozen=True)
class ExportResult:
    """A finished export: its folder, its files, and all that ``export.json`` holds."""

    path: Path
    files: list[ExportedFile]
    content: dict[str, Any]
