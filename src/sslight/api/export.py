"""The parts of an export put together: the files of one room, compared by the neighbors of another."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sslight.config import ExportSettings, build
from sslight.evaluate import knn_classify
from sslight.evaluate.classifiers.knn import nearest_neighbors
from sslight.evaluate.results import read_result, result_files
from sslight.export.classifier import fine_tuned_backbone
from sslight.export.run import run_export
from sslight.export.task import ExportResult
from sslight.finetuning.classifier_file import CLASSIFIER_FILE, is_classifier_file
from sslight.train import weights_in
from sslight.train.record.run_weights import run_folder_of


def export_backbone(checkpoint: str | Path, overrides: Mapping[str, Any] | None = None, **more: Any) -> ExportResult:
    """Export a backbone to files for other programs and devices, each checked against PyTorch and measured.

    ``export_backbone("runs/first/backbone.safetensors", {"data.check": "images"}, format=["safetensors", "onnx"])``;
    settings have the names of the command line.

    ``checkpoint`` is a run folder, an export or a checkpoint of this program, or a ``.pth.tar`` of the original.
    Raises ValueError if a setting, a file or the data is wrong (nothing has been written then), or if a file disagrees
    (the others are there).
    """
    return export_with(build(ExportSettings, {**(overrides or {}), **more}, model=str(checkpoint)))


def export_with(settings: ExportSettings, *, say: Callable[[str], None] = lambda line: None) -> ExportResult:
    """:func:`export_backbone` with settings that are already resolved; ``say`` is called with a line at every stage."""
    resolved = _resolved(settings)
    folder = run_folder_of(resolved.model)
    files = result_files(folder) if "timm" in settings.format else []
    if resolved.classifier is not None:  # then other trainings with labels measured other networks
        given = resolved.classifier.expanduser()
        own = (given if given.is_dir() else given.parent).resolve()
        files = [file for file in files if file.parent.resolve() == own or not _trains(read_result(file))]
    found = [read_result(file) for file in files]
    return run_export(resolved, nearest=_nearest_other, classify=_class_by_neighbors, results=found, say=say)


def _trains(result: Mapping[str, Any]) -> bool:
    return str(result["protocol"]).startswith(("semi", "finetune"))


def _resolved(settings: ExportSettings) -> ExportSettings:
    """A run folder stands for its weights, one of a classifier with its own backbone for both."""
    given = Path(settings.model).expanduser() if settings.classifier is None else settings.classifier
    file = given / CLASSIFIER_FILE if given.is_dir() else given
    if is_classifier_file(file):
        return settings.model_copy(update={"model": str(file), "classifier": file})
    if backbone := fine_tuned_backbone(given):
        return settings.model_copy(update={"model": str(backbone), "classifier": given})
    weights = weights_in(settings.model, whole=settings.network == "teacher")
    return settings.model_copy(update={"model": weights})


def _nearest_other(features: Tensor) -> Tensor:
    return nearest_neighbors(features, features, k=1, leave_one_out=True)[1][:, 0]


def _class_by_neighbors(features: Tensor, labels: Tensor) -> Tensor:
    k, num_classes = min(20, len(features) - 1), int(labels.max()) + 1
    scores = knn_classify(
        features, labels, features, k=k, temperature=0.07, num_classes=num_classes, leave_one_out=True
    )
    return scores.argmax(1)
