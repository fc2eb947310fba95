"""The parts of an export put together: the files of one room, compared by the neighbors of another."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any

from torch import Tensor

from sslight.backbones import load_backbone, read_backbone_info, timm_name, weights_fingerprint
from sslight.config import ExportSettings, build
from sslight.evaluate import knn_classify
from sslight.evaluate.classifiers.knn import nearest_neighbors
from sslight.evaluate.classifiers.mistakes import mean_average_precision, paired_precision_difference
from sslight.evaluate.results import FILE_NAME, read_result, result_files
from sslight.export.checks.agreement import Measures
from sslight.export.classifier import fine_tuned_backbone
from sslight.export.run import run_export
from sslight.export.task import ExportResult
from sslight.finetuning.classifier_file import CLASSIFIER_FILE, is_classifier_file
from sslight.intervals import Difference
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
    return run_export(resolved, measures=_MEASURES, results=found, say=say)


def _trains(result: Mapping[str, Any]) -> bool:
    return str(result["protocol"]).startswith(("semi", "finetune"))


def _resolved(settings: ExportSettings) -> ExportSettings:
    """A run folder stands for its weights, one of a classifier with its own backbone for both."""
    given = Path(settings.model if settings.classifier is None else settings.classifier).expanduser()
    file = given / CLASSIFIER_FILE if given.is_dir() else given
    backbone, classifier = (file, file) if is_classifier_file(file) else (fine_tuned_backbone(given), given)
    if backbone is None:
        weights = weights_in(settings.model, whole=settings.network == "teacher")
        return settings.model_copy(update={"model": weights})
    if settings.network != "student":
        raise ValueError(f"network={settings.network}: {given} holds one network: leave network out.")
    if settings.classifier is not None:
        _check_origin(settings.model, given, backbone)
    return settings.model_copy(update={"model": str(backbone), "classifier": classifier})


def _check_origin(model: str, classifier: Path, backbone: Path) -> None:
    """Raise ValueError for a checkpoint that a classifier, which brings its own ``backbone``, was not trained from."""
    folder = classifier if classifier.is_dir() else classifier.parent
    if Path(model).expanduser().resolve() in (classifier.resolve(), folder.resolve()):
        return
    origin: dict[str, Any] = {}
    with suppress(ValueError, OSError):  # without its results only the networks are compared
        origin = read_result(folder / FILE_NAME)["checkpoint"]
    if model == origin.get("path"):
        return
    remedy = f"give the classifier alone, whose backbone is what is exported: sslight export {quote(str(classifier))}"
    try:
        weights = weights_in(model)
        names = [timm_name(read_backbone_info(path).name) for path in (weights, backbone)]
    except ValueError as error:
        raise ValueError(f"{str(error).rstrip('.')}; or {remedy}.") from None
    if names[0] != names[1]:
        raise ValueError(f"{model} is a {names[0]}, and classifier={classifier} of a {names[1]}: {remedy}.")
    if "weights_sha256" not in origin:
        return
    known = (origin["weights_sha256"], weights_fingerprint(load_backbone(backbone)))
    if weights_fingerprint(load_backbone(weights)) in known:
        return
    network = origin.get("network", "student")
    if network != "student":
        with suppress(ValueError):  # an export has one network
            teacher = load_backbone(weights_in(model, whole=True), network=network)
            if weights_fingerprint(teacher) == origin["weights_sha256"]:
                return
    raise ValueError(f"classifier={classifier} was trained from other weights than those of {model}: {remedy}.")


def _nearest_other(features: Tensor) -> Tensor:
    return nearest_neighbors(features, features, k=1, leave_one_out=True)[1][:, 0]


def _class_by_neighbors(features: Tensor, labels: Tensor) -> Tensor:
    k, num_classes = min(20, len(features) - 1), int(labels.max()) + 1
    scores = knn_classify(
        features, labels, features, k=k, temperature=0.07, num_classes=num_classes, leave_one_out=True
    )
    return scores.argmax(1)


def _precision(before: Tensor, after: Tensor, labels: Tensor) -> tuple[float, Difference]:
    old, new, wanted = before.numpy(), after.numpy(), labels.numpy()
    return 100 * mean_average_precision(old, wanted), paired_precision_difference(new, old, wanted)


_MEASURES = Measures(_nearest_other, _class_by_neighbors, _precision)
