"""A backbone as files for other programs and devices, each checked against the PyTorch network and measured."""

from sslight.export.agreement import Agreement, Classify, Nearest
from sslight.export.run import ExportedFile, ExportResult, run_export

__all__ = ["Agreement", "Classify", "ExportResult", "ExportedFile", "Nearest", "run_export"]
