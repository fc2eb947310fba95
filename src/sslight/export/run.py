"""An export from settings to a folder of files that were checked and measured."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslight.backbones import load_backbone, read_backbone_info, weights_fingerprint
from sslight.config import ExportSettings
from sslight.data import available_cores
from sslight.export.checks.agreement import Agreement, Measures, check, compare
from sslight.export.checks.cost import latencies
from sslight.export.checks.sensitivity import Quantization
from sslight.export.classifier import Classifier, read_classifier
from sslight.export.facts import content_of, tolerance
from sslight.export.files import (
    QUANTIZED,
    Say,
    file_name,
    num_bytes,
    opened,
    outputs,
    quantize,
    reference,
    torch_runner,
    write,
)
from sslight.export.formats.library import quiet, runtime
from sslight.export.formats.weights_file import WEIGHT_KEYS, check_weights
from sslight.export.images import open_images, read_images
from sslight.export.network import prepare
from sslight.export.task import ExportedFile, ExportResult, LabeledImages, Refusal, Task
from sslight.files import unused, whole_folder, write_whole
from sslight.train.record.run_weights import run_folder_of

FACTS_NAME = "export.json"
_MODULES = {
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "litert": ("litert_torch", "ai_edge_quantizer", "ai_edge_litert.interpreter"),
    "executorch": ("executorch.runtime",),
    "coreml": ("coremltools",),
}

Results = Sequence[Mapping[str, Any]]


def run_export(settings: ExportSettings, *, measures: Measures, results: Results = (), say: Say) -> ExportResult:
    """Write all files of an export, check and measure each; the folder appears when all are done, or not at all.

    ``measures`` and ``results`` (what was measured of these weights) come from this room's neighbor; ``say`` is called
    with a line at every stage. Raises ValueError if an input is wrong (nothing was computed then), or a file disagrees
    with the PyTorch network.
    """
    task = _prepare(settings, results)
    classifier = task.exportable.classifier
    multi_label = classifier is not None and classifier.multi_label
    compared = partial(compare, measures=measures, multi_label=multi_label)
    check_images, labels, notes = read_images(task, task.images, "data.check", settings.data.num_check)
    if task.calibration is not None:
        pixels, known, more = read_images(task, task.calibration, "data.calibration", settings.data.num_calibration)
        task, notes = replace(task, calibrating=(pixels, known)), [*notes, *more]
    say(f"{len(check_images)} images of data.check at {task.exportable.info.image_size} px through PyTorch")
    for note in notes:
        say(note)
    before = reference(task, check_images)
    files: list[ExportedFile] = []
    refused: dict[str, Refusal] = {}
    try:
        with whole_folder(task.output) as folder:
            for form in settings.format:
                path, quantization, agreement = folder / file_name(task.exportable, form), None, None
                try:
                    say(f"{form}: writing")
                    if form in QUANTIZED:
                        quantization = quantize(task, form, path, folder, compared, say)
                    else:
                        write(task, form, path, folder)
                    if form == "coreml":  # macOS alone runs it; write_coreml has checked its specification
                        files.append(ExportedFile(form, path, num_bytes(path), None, {}, {}))
                        continue
                    say(f"{form}: comparing")
                    after = outputs(task.exportable, form, path, check_images)
                    agreement = compared(before, after, labels)
                    try:
                        check(agreement, tolerance(settings, form), f"format={form}")
                    except ValueError:
                        if quantization is None:
                            raise
                        if quantization.accepted and settings.int8.float_layers is None:
                            again = folder / f"analysis{path.suffix}"
                            analysis = quantize(task, form, again, folder, compared, say, refused=True)
                            quantization = replace(quantization, analysis=analysis)
                        check(agreement, tolerance(settings, form), f"format={form}", quantization.remedy(form))
                    say(f"{form}: measuring")
                    files.append(_measured(task, form, path, agreement, check_images[:1], quantization))
                except ValueError as error:  # the other files may be good
                    reason = f"{error} ({quantization})" if quantization else str(error)
                    refused[form] = Refusal(reason, agreement, quantization)
            reasons = [each.reason for each in refused.values()]
            if not files:
                raise ValueError("\n".join(reasons))
            for path in {*folder.iterdir()} - {file.path for file in files}:  # the float32 file behind an int8 one
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            content = content_of(task, files, refused, len(check_images), notes)
            write_whole(folder / FACTS_NAME, f"{json.dumps(content, indent=2, ensure_ascii=False)}\n")
    except OSError as error:
        if error.filename and task.output.name in str(error.filename):
            reason = f"output={task.output} cannot be written ({error.strerror}): choose another folder."
            raise ValueError(reason) from None
        raise
    if refused:
        good = ", ".join(file.path.name for file in files)
        kept = f"{good} agreed and is in {task.output}; {FACTS_NAME} there has the figures of what was refused."
        raise ValueError("\n".join([*reasons, kept]))
    moved = [replace(file, path=task.output / file.path.name) for file in files]
    return ExportResult(task.output, moved, content)


def _prepare(settings: ExportSettings, results: Results) -> Task:
    """Whatever can be refused is refused here, the cheapest first; nothing is written."""
    checkpoint = Path(settings.model).expanduser()
    beside = run_folder_of(settings.model)
    output = settings.output or unused(beside / "export")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"output={output} exists and is not overwritten: choose another folder.")
    if not settings.data.check:
        raise ValueError("data.check is not set: give real images, on which the files are compared with the network.")
    quantized = [form for form in settings.format if form.endswith("int8")]
    if quantized and not settings.data.calibration:
        raise ValueError(
            f"data.calibration is not set: format={quantized[0]} needs images, such as data.calibration=images."
        )
    for name, modules in _MODULES.items():
        if any(form.startswith(name) for form in settings.format):
            _check_installed(name, *modules)
    info = read_backbone_info(checkpoint)
    backbone = load_backbone(checkpoint, network=settings.network)
    fingerprint = weights_fingerprint(backbone)
    classifier = None if settings.classifier is None else read_classifier(settings.classifier.expanduser(), backbone)
    size, resize = _sizes(settings, info.image_size, classifier)
    if settings.probabilities and classifier is None:
        raise ValueError("probabilities=true would have no effect: there is no classifier; set classifier=FOLDER.")
    of = ("without", ("cosine", "knn")) if classifier is None else ("with", ("same_class", "accuracy"))
    for name, value in settings.tolerance.model_dump(exclude_none=True).items():
        if name not in of[1]:
            raise ValueError(
                f"tolerance.{name}={value:g} would have no effect: {of[0]} a classifier "
                f"{' and '.join(f'tolerance.{each}' for each in of[1])} count; set these."
            )
    exportable = prepare(
        backbone,
        info,
        image_size=size,
        input=settings.input,
        classifier=classifier,
        probabilities=settings.probabilities,
    )
    for form in settings.format:
        if form in WEIGHT_KEYS:  # a timm folder, too
            check_weights(exportable, WEIGHT_KEYS[form])
    data, calibration = settings.data, None
    if quantized:
        calibration = open_images(data.calibration, "data.calibration", data, classifier)
    images = open_images(data.check, "data.check", data, classifier, table=data.labels)
    _check_accuracy(settings, classifier, images)
    kept = [each for each in results if _measures(each, fingerprint, classifier)]
    return Task(settings, exportable, images, calibration, resize, output, fingerprint, beside, kept)


def _check_accuracy(settings: ExportSettings, classifier: Classifier | None, images: LabeledImages) -> None:
    """Raise ValueError if a loss of accuracy is limited that nothing can show."""
    labels, limit = images.labels, settings.tolerance.accuracy
    if limit is None or classifier is None:
        return
    if labels is None or (labels.ndim == 1 and not (labels < len(classifier.classes)).any()):
        table = " with a column of 0 and 1 for each" if classifier.multi_label else ", or class folders of their names"
        raise ValueError(
            f"tolerance.accuracy={limit:g} would have no effect: data.check has no labels of the classifier's; give a "
            f"table of them as data.labels{table}."
        )


def _measures(result: Mapping[str, Any], fingerprint: str, classifier: Classifier | None) -> bool:
    """Whether a result is of the backbone with this fingerprint, or of the training that gave it its classifier."""
    trained = classifier is not None and result["protocol"].startswith(("semi", "finetune"))
    return trained or bool(result.get("checkpoint", {}).get("weights_sha256") == fingerprint)


def _check_installed(form: str, *modules: str) -> None:
    for module in modules:
        try:
            with quiet():
                import_module(module)
        except ImportError:
            packages = [name.partition(".")[0].replace("_", "-") for name in modules]
            missing, remedy = packages[modules.index(module)], f"pip install {' '.join(packages)}"
            raise ValueError(f"format={form} needs the package {missing}, which is not installed: {remedy}.") from None


def _sizes(settings: ExportSettings, trained: int, classifier: Classifier | None) -> tuple[int, int | None]:
    """Side of the images, and their shorter side before the cut if it is not the usual one."""
    size, resize = settings.image_size, settings.resize
    if classifier is not None and size in (None, classifier.image_size):
        size, resize = classifier.image_size, resize or classifier.resize
    size = size or trained
    if resize is not None and resize < size:
        raise ValueError(f"resize={resize} is smaller than the image size {size}: resize to at least that.")
    return size, resize


def _measured(
    task: Task, form: str, path: Path, agreement: Agreement, image: Tensor, quantization: Quantization | None
) -> ExportedFile:
    together = task.settings.batch if form.startswith("onnx") and isinstance(task.settings.batch, int) else 1
    exportable, one = task.exportable, task.exportable.as_input(image.expand(together, -1, -1, -1))
    own, pytorch = {}, {}
    eager = torch_runner(exportable.network)
    threads_before = torch.get_num_threads()
    try:
        for threads in sorted({1, available_cores()}):
            torch.set_num_threads(threads)
            with runtime(form):
                run = opened(exportable, form, path, threads=threads)
                found = latencies(
                    {"pytorch": lambda: eager(one), "file": lambda run=run: run(one)},  # type: ignore[misc]
                    num_runs=task.settings.runs,
                )
            own[threads], pytorch[threads] = (round(found[side] / together, 3) for side in ("file", "pytorch"))
    finally:
        torch.set_num_threads(threads_before)
    return ExportedFile(form, path, num_bytes(path), agreement, own, pytorch, quantization)
