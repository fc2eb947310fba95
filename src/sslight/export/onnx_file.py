"""ONNX files, in float32 and statically quantised to 8 bits. Needs the extra ``export``."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sslight.config import ExportSettings
from sslight.export.network import Exportable

OPSET = 18
"""ONNX operator set: old enough for runtimes of 2023 and later, and the exporter's own, without conversion."""

# With Add, Clip and Relu among them, a convolution, its activation and the sum after it stay in 8 bits as one: a
# MobileNetV2 at 224 px was both nearer to float32 (mean cosine 0.9980 instead of 0.9960) and faster than with
# convolutions alone. The sums of a transformer carry a few values far larger than the others, which 8 bits do not
# resolve (Bondarenko et al., EMNLP 2021), so they stay float32 there.
_PRODUCTS, _SUMS = ["Conv", "Gemm", "MatMul"], ["Add", "Clip", "Relu"]
_CALIBRATION_BATCH = 8


def write_onnx(exportable: Exportable, path: Path, *, facts: dict[str, Any]) -> None:
    """Write the network with any number of images as input; ``facts`` go into the file's metadata."""
    size = exportable.info.image_size
    example = torch.from_numpy(exportable.as_input(torch.zeros(2, 3, size, size, dtype=torch.uint8)))
    with library("onnx"):
        program = torch.onnx.export(
            exportable.fused(),
            (example,),
            dynamo=True,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            input_names=["images"],
            output_names=exportable.output_names,
            verbose=False,
        )
        assert program is not None
        program.save(path, external_data=False)
    _write_facts(path, facts)


def quantize(
    source: Path, path: Path, images: npt.NDArray[Any], settings: ExportSettings, *, facts: dict[str, Any]
) -> None:
    """Quantise a float32 ONNX file from :func:`write_onnx`: weights to int8 by output channel, activations to uint8.

    Convolutions and products with weights compute in 8 bits, in convolutional networks sums and activations too;
    everything else stays float32. ``images [N, ...]``, as the network takes them, give the ranges of the activations.
    """
    import onnx
    from onnxruntime import quantization as ort_quantization

    batches = [images[start : start + _CALIBRATION_BATCH] for start in range(0, len(images), _CALIBRATION_BATCH)]
    unread = iter(batches)

    class Reader(ort_quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            batch = next(unread, None)
            return None if batch is None else {"images": batch}

    nodes = onnx.load(source).graph.node
    operators = [node.op_type for node in nodes]
    first = operators.index("Conv") if "Conv" in operators else 0
    method = "MinMax" if settings.int8.method == "minmax" else settings.int8.method.capitalize()
    options: dict[str, Any] = {"MatMulConstBOnly": True}
    if method == "MinMax":
        # Batches in memory at a time. ONNX Runtime takes it for an error if none is left over at the end.
        options["CalibMaxIntermediateOutputs"] = next(size for size in range(4, 99) if len(batches) % size)
    if method == "Percentile":
        options["CalibPercentile"] = settings.int8.percentile
    with library("onnx-int8"):
        ort_quantization.quantize_static(
            source,
            path,
            Reader(),
            quant_format=ort_quantization.QuantFormat.QDQ,
            op_types_to_quantize=_PRODUCTS if "LayerNormalization" in operators else [*_PRODUCTS, *_SUMS],
            nodes_to_exclude=[node.name for node in nodes[:first]],  # the preprocessing
            per_channel=True,
            activation_type=ort_quantization.QuantType.QUInt8,
            weight_type=ort_quantization.QuantType.QInt8,
            calibrate_method=getattr(ort_quantization.CalibrationMethod, method),
            extra_options=options,
        )
    _write_facts(path, facts)


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
        outputs: list[npt.NDArray[np.float32]] = self._session.run(None, {"images": images})
        return outputs


def _write_facts(path: Path, facts: dict[str, Any]) -> None:
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()})
    onnx.checker.check_model(model)
    onnx.save(model, path)


@contextlib.contextmanager
def library(form: str) -> Iterator[None]:
    """Without the progress, advice and deprecations of a form's library, which say nothing about the result.

    What it cannot do is a ValueError, with its own words.
    """
    before, nowhere = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    except OSError:
        raise
    except Exception as error:  # the libraries have types of their own
        words = " ".join(str(error).split())[:300]
        raise ValueError(
            f"format={form} cannot be written, its library stops with {type(error).__name__} ({words}): "
            "export another format, and report this network."
        ) from error
    finally:
        logging.disable(before)
