"""The files of an export by format, written, quantized, opened and run, and the network to compare them with."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sslight.backbones import LastBlocks, load_backbone
from sslight.export.checks.agreement import Agreement, check
from sslight.export.checks.sensitivity import Quantization, Quantizer, quantize_within
from sslight.export.facts import file_metadata, parts, shorter_side, tolerance
from sslight.export.formats.coreml_file import write_coreml
from sslight.export.formats.executorch_file import quantize_executorch, write_executorch
from sslight.export.formats.library import library, runtime
from sslight.export.formats.litert_file import LiteRTQuantizer, append_facts, halve_weights, write_litert
from sslight.export.formats.onnx_file import halve_onnx, write_facts, write_onnx
from sslight.export.formats.onnx_int8 import OnnxQuantizer
from sslight.export.formats.runtimes import RUNTIMES
from sslight.export.formats.timm_folder import open_timm_folder, write_timm_folder
from sslight.export.formats.weights_file import WEIGHT_KEYS, open_weights, write_weights
from sslight.export.network import Exportable
from sslight.export.task import Task
from sslight.views import normalize

QUANTIZED = ("onnx-int8", "litert-int8")
"""Formats whose layers can be quantized one by one."""

_SUFFIXES = {
    "safetensors": ".safetensors",
    "torchvision": ".torchvision.safetensors",
    "timm": ".timm",
    "onnx": ".onnx",
    "onnx-fp16": ".fp16.onnx",
    "onnx-int8": ".int8.onnx",
    "litert": ".tflite",
    "litert-fp16": ".fp16.tflite",
    "litert-int8": ".int8.tflite",
    "executorch": ".pte",
    "executorch-int8": ".int8.pte",
    "coreml": ".mlpackage",
}
_BATCH = 32
_JUDGES = 4  # each fourth calibration image gives no ranges, but says which are good

Runner = Callable[[npt.NDArray[Any]], list[npt.NDArray[np.float32]]]
Say = Callable[[str], None]
Compared = Callable[[list[Tensor], list[Tensor], Tensor | None], Agreement]


def file_name(exportable: Exportable, form: str) -> str:
    return f"{'backbone' if exportable.classifier is None else 'classifier'}{_SUFFIXES[form]}"


def num_bytes(path: Path) -> int:
    return sum(part.stat().st_size for part in parts(path))


def write(task: Task, form: str, path: Path, folder: Path) -> None:
    exportable, settings, facts = task.exportable, task.settings, file_metadata(task, form)
    match form:
        case "safetensors" | "torchvision":
            write_weights(exportable, path, keys=WEIGHT_KEYS[form], resize=task.resize)
        case "timm":
            write_timm_folder(
                exportable,
                path,
                resize=shorter_side(task),
                license=settings.license,
                run=task.run,
                results=task.results,
            )
        case "onnx":
            write_onnx(exportable, path, batch=settings.batch, opset=settings.opset, facts=facts)
        case "onnx-fp16":
            halve_onnx(_float32(task, "onnx", folder), path, facts=facts)
        case "litert":
            write_litert(exportable, path, facts=facts)
        case "litert-fp16":
            halve_weights(_float32(task, "litert", folder), path, facts=facts)
        case "executorch":
            write_executorch(exportable, path, facts=facts)
        case "executorch-int8":
            assert task.calibrating is not None
            images, _ = task.calibrating
            quantize_executorch(exportable, path, exportable.as_input(images), facts=facts)
        case "coreml":
            write_coreml(exportable, path, facts=facts)


def quantize(
    task: Task, form: str, path: Path, folder: Path, compared: Compared, say: Say, *, refused: bool = False
) -> Quantization:
    """Write a file in 8 bits with what the calibration images say of it.

    If such a file was ``refused`` that had held on these images, nothing holds any more: each layer is looked at.
    """
    assert task.calibrating is not None
    images, labels = task.calibrating
    if len(images) < 2 * _JUDGES:
        raise ValueError(
            f"data.calibration has {len(images)} readable images, too few for 8 bits: give {2 * _JUDGES} or more."
        )
    judges = np.arange(len(images)) % _JUDGES == _JUDGES - 1  # on images that gave the ranges, all look good
    exportable, limit, judging = task.exportable, tolerance(task.settings, form), images[judges]
    expected = reference(task, judging)

    def judge(path: Path) -> Agreement:
        found = outputs(exportable, form, path, judging, threads=torch.get_num_threads())
        return compared(expected, found, None if labels is None else labels[judges])

    def accepts(agreement: Agreement) -> bool:
        try:
            check(agreement, limit, form)
        except ValueError:
            return False
        return not refused

    with TemporaryDirectory() as scratch:
        source = _float32(task, form.removesuffix("-int8"), folder)
        array, int8 = exportable.as_input(images[~judges]), task.settings.int8
        quantizer: Quantizer
        with library(form):
            if form == "onnx-int8":
                quantizer = OnnxQuantizer(source, array, int8, Path(scratch))
            else:
                quantizer = LiteRTQuantizer(exportable, source, array)
        found = quantize_within(
            quantizer,
            path,
            float_layers=int8.float_layers,
            judge=judge,
            accepts=accepts,
            say=lambda line: say(f"{form}: {line}"),
        )
    put_facts = write_facts if form == "onnx-int8" else append_facts
    with library(form):
        put_facts(path, file_metadata(task, form))
    return found


def _float32(task: Task, form: str, folder: Path) -> Path:
    """The file of a form from which others are made, written if it is not there."""
    path = folder / file_name(task.exportable, form)
    if not path.exists():
        path = folder / f"float32{path.suffix}"
    if not path.exists():
        write(task, form, path, folder)
    return path


def opened(exportable: Exportable, form: str, path: Path, *, threads: int) -> Runner:
    if form == "timm":
        return torch_runner(open_timm_folder(exportable, path))
    if form in WEIGHT_KEYS:
        return torch_runner(open_weights(exportable, path, keys=WEIGHT_KEYS[form]))
    runner, _ = RUNTIMES[path.suffix]
    return runner(path, threads=threads)


def torch_runner(network: torch.nn.Module) -> Runner:
    @torch.inference_mode()
    def run(images: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
        found = network(torch.from_numpy(images))
        return [part.numpy() for part in (found if isinstance(found, tuple) else (found,))]

    return run


def outputs(exportable: Exportable, form: str, path: Path, images: Tensor, *, threads: int = 1) -> list[Tensor]:
    with runtime(form):
        run = opened(exportable, form, path, threads=threads)
        parts = [run(exportable.as_input(batch)) for batch in torch.split(images, _BATCH)]
        return [torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*parts, strict=True)]


@torch.inference_mode()
def reference(task: Task, images: Tensor) -> list[Tensor]:
    """Features, and logits, with nothing of the export: the network as its file has it, images as evaluations see them.

    What folding, fusing or another order of channels would change, changes the files alone.
    """
    info, classifier = task.exportable.info, task.exportable.classifier
    network = load_backbone(task.settings.model, network=task.settings.network)
    if classifier is not None and classifier.last_blocks is not None:
        network = LastBlocks(network, classifier.last_blocks)
    batches = torch.split(images, _BATCH)
    features = torch.cat([network(normalize(batch[None], info.mean, info.std)) for batch in batches])
    return [features] if classifier is None else [features, classifier.unfolded(features)]
