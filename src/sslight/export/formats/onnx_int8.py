"""ONNX files in 8 bits: static quantization (QDQ) by ONNX Runtime. Needs the extra ``export``."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sslight.config.schema.export_settings import Int8Settings
from sslight.export.checks.sensitivity import groups
from sslight.export.formats.library import library

# With Add, Clip and Relu among them, a convolution, its activation and the sum after it stay in 8 bits as one: a
# MobileNetV2 at 224 px was both nearer to float32 (mean cosine 0.9980 instead of 0.9960) and faster than with
# convolutions alone. The sums of a transformer carry a few values far larger than the others, which 8 bits do not
# resolve (Bondarenko et al., EMNLP 2021), so they stay float32 there.
_PRODUCTS, _SUMS = ["Conv", "Gemm", "MatMul"], ["Add", "Clip", "Relu"]
_METHODS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
_CALIBRATION_BATCH = 8


class OnnxQuantizer:
    """A float32 ONNX file from :func:`write_onnx`: weights to int8 by output channel, activations to 8 bits.

    Convolutions and products with weights compute in 8 bits, in convolutional networks sums and activations too;
    everything else stays float32. ``images [N, ...]``, as the network takes them, give the ranges of the activations,
    once for each method; they are kept in ``scratch``.
    """

    def __init__(self, source: Path, images: npt.NDArray[Any], settings: Int8Settings, scratch: Path) -> None:
        import onnx

        graph = onnx.load(source).graph
        (shape,) = (each.type.tensor_type.shape for each in graph.input)
        batch = shape.dim[0].dim_value or _CALIBRATION_BATCH
        whole = np.arange(-(-len(images) // batch) * batch) % len(images)  # the first again, to fill the last batch
        self._batches = np.split(images[whole], len(whole) // batch)
        self._source, self._settings, self._scratch = source, settings, scratch
        operators = [node.op_type for node in graph.node]
        self._types = _PRODUCTS if "LayerNormalization" in operators else [*_PRODUCTS, *_SUMS]
        first = operators.index("Conv") if "Conv" in operators else 0
        self._preprocessing = [node.name for node in graph.node[:first]]
        weights = {each.name for each in graph.initializer}
        taken = [
            node
            for node in graph.node[first:]
            if node.op_type in self._types and (node.op_type != "MatMul" or weights & {*node.input})
        ]
        found = groups(taken, is_product=lambda node: node.op_type in _PRODUCTS)
        self._nodes = {group[0].name: [node.name for node in group] for group in found}
        self.layers: Sequence[str] = list(self._nodes)
        self.methods: Sequence[str] = list(_METHODS) if settings.method == "auto" else [settings.method]

    def write(self, path: Path, *, method: str, float_layers: Iterable[str]) -> None:
        """Write the file in 8 bits, but for some of its layers."""
        from onnxruntime import quantization

        class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
            """Batches one after the other; ONNX Runtime asks for a part at a time, which bounds its memory."""

            def __init__(self, batches: list[npt.NDArray[Any]]) -> None:
                self._batches, self._unread = batches, iter(batches)

            def __len__(self) -> int:
                return len(self._batches)

            def set_range(self, start_index: int, end_index: int) -> None:
                self._unread = iter(self._batches[start_index:end_index])

            def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
                batch = next(self._unread, None)
                return None if batch is None else {"images": batch}

        symmetric = self._settings.symmetric
        options: dict[str, Any] = {"MatMulConstBOnly": True, "CalibStridedMinMax": 1}
        if method == "percentile":
            options["CalibPercentile"] = self._settings.percentile
        if symmetric:  # what TensorRT takes: zero points of 0, and biases in float
            options |= {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
        with library("onnx-int8"):
            quantization.quantize_static(
                self._source,
                path,
                Reader(self._batches),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=self._types,
                nodes_to_exclude=[*self._preprocessing, *(node for name in float_layers for node in self._nodes[name])],
                per_channel=True,
                activation_type=quantization.QuantType.QInt8 if symmetric else quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=getattr(quantization.CalibrationMethod, _METHODS[method]),
                calibration_cache_path=self._scratch / f"{method}.json",
                extra_options=options,
            )
