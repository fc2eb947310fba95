"""What an export says of itself: ``export.json``, and the metadata in ONNX and LiteRT files."""

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from sslight.backbones import timm_name
from sslight.config import ExportSettings
from sslight.data import data_fingerprint
from sslight.export.checks.agreement import FLOAT16, FLOAT32, INT8, Tolerance
from sslight.export.checks.cost import cost_of, device_facts
from sslight.export.formats.weights_file import WEIGHT_KEYS, how_to_load
from sslight.export.task import ExportedFile, Refusal, Task
from sslight.train.record.run_folder import package_versions

FORMAT = "sslight-export"
_PACKAGES = (
    *("sslight", "torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime", "executorch"),
    *("litert-torch", "ai-edge-quantizer", "ai-edge-litert", "torchao", "coremltools"),
)


def tolerance(settings: ExportSettings, form: str) -> Tolerance:
    """The format's tolerance, with the user's values in its place; a user who accepts more also accepts larger
    differences.
    """
    wanted = settings.tolerance
    default = INT8 if form.endswith("int8") else FLOAT16 if form.endswith("fp16") or form == "coreml" else FLOAT32
    changes: dict[str, Any] = wanted.model_dump(exclude_none=True)
    if wanted.knn is not None:
        changes["same_neighbor"] = changes["same_knn_class"] = changes.pop("knn")
    if changes:
        changes["difference"] = changes["signal_to_noise"] = None
    return replace(default, **changes)


def file_metadata(task: Task, form: str) -> dict[str, Any]:
    """What someone who only has the file must know."""
    name, classifier, network = task.exportable.info.name, task.exportable.classifier, task.settings.network
    facts: dict[str, Any] = {
        "sslight": {
            "version": version("sslight"),
            "backbone": name,
            "timm_name": timm_name(name),
            "weights_sha256": task.weights_sha256,
            "preprocessing": _preprocessing(task, _batch(task, form)),
            "last_blocks": None if classifier is None else classifier.last_blocks,
            "multi_label": classifier is not None and classifier.multi_label,
        }
    }
    if classifier is not None:
        facts["classes"] = list(classifier.classes)
    return facts | ({"network": network} if network != "student" else {})


def _batch(task: Task, *forms: str) -> int | Literal["dynamic"]:
    """How many images files take at a time; weights take any, and of files that differ nothing else can be said."""
    taken = [form for form in forms if form not in WEIGHT_KEYS]
    found = {task.settings.batch if form.startswith("onnx") else 1 for form in taken}
    return found.pop() if len(found) == 1 else "dynamic"


def _preprocessing(task: Task, batch: int | Literal["dynamic"]) -> dict[str, Any]:
    info, size = task.exportable.info, task.exportable.info.image_size
    kind, number = task.exportable.input, "batch" if batch == "dynamic" else batch
    return {
        "colours": "RGB",
        "resize_shorter_side": shorter_side(task),
        "interpolation": "bicubic, antialiased",
        "centre_crop": size,
        "input": kind,
        "shape": [number, size, size, 3] if kind == "nhwc" else [number, 3, size, size],
        "dtype": "float32" if kind == "normalized" else "uint8",
        "mean": list(info.mean),
        "std": list(info.std),
        "normalised_inside": kind != "normalized",
    }


def shorter_side(task: Task) -> int:
    """The shorter side to which an image is resized before its center is cut, px."""
    return task.resize or round(task.exportable.info.image_size * 256 / 224)


def parts(path: Path) -> list[Path]:
    """The files of a format that is a folder; else the file."""
    return sorted(part for part in path.rglob("*") if part.is_file()) if path.is_dir() else [path]


def content_of(
    task: Task, files: list[ExportedFile], refused: Mapping[str, Refusal], num_images: int, notes: list[str]
) -> dict[str, Any]:
    """What ``export.json`` holds; ``refused`` are those by format that are not among the files.

    ``notes`` are what a reader of the agreement must know, a sentence each.
    """
    settings, exportable = task.settings, task.exportable
    installed = {name: found for name, found in package_versions(_PACKAGES).items() if found is not None}
    return {
        "format": FORMAT,
        "version": 1,
        "checkpoint": {
            "path": settings.model,
            "network": settings.network,
            "backbone": exportable.info.name,
            "notes": dict(exportable.info.notes),
            "weights_sha256": task.weights_sha256,
        },
        "preprocessing": _preprocessing(task, _batch(task, *(file.format for file in files))),
        "outputs": exportable.output_names,
        "classes": None if exportable.classifier is None else list(exportable.classifier.classes),
        "settings": settings.model_dump(mode="json"),
        "check": {
            "paths": settings.data.check,
            "num_images": num_images,
            "labelled": task.images.labels is not None,
            "classes": None if task.images.classes is None else list(task.images.classes),
            "set_sha256": data_fingerprint(task.images.source).sha256,
        },
        "notes": notes,
        "files": {file.path.name: _file_facts(task, file) for file in files},
        "refused": {form: asdict(refusal) for form, refusal in refused.items()},
        "cost": cost_of(exportable.fused(), exportable.example()),
        "device": device_facts(),
        "versions": {"python": platform.python_version(), **installed},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _file_facts(task: Task, file: ExportedFile) -> dict[str, Any]:
    facts = asdict(file) | {
        "sha256": hashlib.sha256(b"".join(part.read_bytes() for part in parts(file.path))).hexdigest(),
        "tolerance": asdict(tolerance(task.settings, file.format)),
    }
    del facts["path"]
    if file.format in WEIGHT_KEYS:  # weights have no input of their own: it is that of the network
        size = task.exportable.info.image_size
        facts["input"] = {"shape": ["batch", 3, size, size], "dtype": "float32", "normalised_inside": False}
        facts["load"] = how_to_load(task.exportable, file.path.name, keys=WEIGHT_KEYS[file.format])
        if file.format == "timm":
            facts["load"] = f'timm.create_model("local-dir:{file.path.name}", pretrained=True)'
        return facts
    facts["batch"] = _batch(task, file.format)
    if file.format != "coreml":  # takes a picture
        seen = _preprocessing(task, facts["batch"])
        facts["input"] = {name: seen[name] for name in ("shape", "dtype", "normalised_inside")}
    if file.format.startswith("onnx"):
        facts["opset"] = task.settings.opset
    return facts
