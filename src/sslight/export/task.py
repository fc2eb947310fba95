"""One prepared export, and its result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sslight.config import ExportSettings
from sslight.data import Source
from sslight.export.checks.agreement import Agreement
from sslight.export.checks.sensitivity import Quantization
from sslight.export.network import Exportable


@dataclass(frozen=True)
class LabeledImages:
    """A set, and what is known of its images."""

    source: Source
    classes: Sequence[str] | None = None
    labels: Tensor | None = (
        None  # positions [N] (the classifier's classes first) or, if labels overlap, [N, C] of 0 and 1
    )
    notes: Sequence[str] = ()  # what a reader of the accuracy must know, a sentence each


@dataclass(frozen=True)
class Task:
    """What is exported, on which images it is checked, and where it goes."""

    settings: ExportSettings
    exportable: Exportable
    images: LabeledImages
    calibration: LabeledImages | None  # None without quantization
    resize: int | None  # shorter side before the center is cut, px; None: the usual one
    output: Path
    weights_sha256: str  # fingerprint of the backbone as it was read
    run: Path  # folder of the run that the backbone comes from
    results: Sequence[Mapping[str, Any]] = ()  # what evaluations have measured in it
    calibrating: tuple[Tensor, Tensor | None] | None = None  # of ``calibration`` what is used, when it has been read


@dataclass(frozen=True)
class ExportedFile:
    """One file of an export."""

    format: str
    path: Path
    num_bytes: int
    agreement: Agreement | None  # with the PyTorch network, on data.check; None where the format cannot run here
    latency_ms: dict[int, float]  # number of threads → median time of one image
    pytorch_latency_ms: dict[int, float]  # the PyTorch network's (float32, eager), measured in turn with it
    quantization: Quantization | None = None


@dataclass(frozen=True)
class Refusal:
    """A file that was not written."""

    reason: str
    agreement: Agreement | None  # None if it could not be written or run
    quantization: Quantization | None


@dataclass(frozen=True)
class ExportResult:
    """A finished export: its folder, its files, and all that ``export.json`` holds."""

    path: Path
    files: list[ExportedFile]
    content: dict[str, Any]
