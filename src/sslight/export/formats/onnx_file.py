"""ONNX files in float32 and float16; :mod:`onnx_int8` quantizes them. Needs the extra ``export``."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from sslight.export.formats.library import library
from sslight.export.network import Exportable

_LARGEST = 2**22  # numbers in a constant that is computed before the file is written


def write_onnx(
    exportable: Exportable, path: Path, *, batch: int | Literal["dynamic"], opset: int, facts: dict[str, Any]
) -> None:
    """Write the network for ``batch`` images at a time; ``facts`` are stored in the file's metadata."""
    with library("onnx"):
        program = torch.onnx.export(
            exportable.fused(),
            (exportable.example(2 if batch == "dynamic" else batch),),
            dynamo=True,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}} if batch == "dynamic" else None,
            opset_version=opset,
            input_names=["images"],
            output_names=exportable.output_names,
            verbose=False,
        )
        assert program is not None
        # The exporter leaves what follows from larger constants to be computed: places of attention biases (LeViT).
        optimizer = import_module("onnxscript.optimizer")
        optimizer.optimize(program.model, input_size_limit=_LARGEST, output_size_limit=_LARGEST)
        program.save(path, external_data=False)
        write_facts(path, facts)


def halve_onnx(source: Path, path: Path, *, facts: dict[str, Any]) -> None:
    """Write a file from :func:`write_onnx` with weights and sums in float16; inputs and outputs stay as they are."""
    with library("onnx-fp16"):
        import onnx

        float16 = import_module("onnxruntime.transformers.float16")
        model = float16.convert_float_to_float16(onnx.load(source), keep_io_types=True, disable_shape_infer=True)
        onnx.save(model, path)
        write_facts(path, facts)


class OnnxRunner:
    """An ONNX file in ONNX Runtime on the CPU: an array of images → arrays ``features`` (and ``logits``)."""

    def __init__(self, path: Path, *, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Waiting threads would otherwise take time from what is measured in turn with this.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    @property
    def facts(self) -> dict[str, Any]:
        """What the file says of itself."""
        found = self._session.get_modelmeta().custom_metadata_map.items()
        return {key: json.loads(value) for key, value in found if key in ("sslight", "classes", "network")}

    def __call__(self, images: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
        """``[B, ...]`` → one array ``[B, ...]`` for each output."""
        batch = self._session.get_inputs()[0].shape[0]
        step = batch if isinstance(batch, int) else max(1, len(images))
        parts = []
        for start in range(0, len(images), step):
            part = images[start : start + step]
            missing = [(0, step - len(part) if isinstance(batch, int) else 0)] + [(0, 0)] * (images.ndim - 1)
            found = self._session.run(None, {"images": np.pad(part, missing)})
            parts.append([rows[: len(part)] for rows in found])
        return [np.concatenate(rows) for rows in zip(*parts, strict=True)]


def write_facts(path: Path, facts: dict[str, Any]) -> None:
    """Put ``facts`` into the metadata of an ONNX file, as JSON by key, and check the whole."""
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()})
    onnx.checker.check_model(model)
    onnx.save(model, path)
