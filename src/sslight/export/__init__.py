"""A backbone as files for other programs and devices, each checked against the PyTorch network and measured."""

from sslight.export.agreement import Agreement, Classify, Nearest
from sslight.export.run import run_export
from sslight.export.task import ExportedFile, ExportResult

__all__ = ["Agreement", "Classify", "ExportResult", "ExportedFile", "Nearest", "run_export"]
