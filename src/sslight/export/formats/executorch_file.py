"""ExecuTorch programs for XNNPACK, in float32 and 8 bits. Needs the extra ``executorch``."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sslight.export.formats.library import library
from sslight.export.network import Exportable

_FACTS = "sslight"  # a method of the program without input, which gives JSON


def write_executorch(exportable: Exportable, path: Path, *, facts: dict[str, Any]) -> None:
    """Write the network for one image at a time, in float32, for XNNPACK; ``facts`` are stored in the file."""
    with library("executorch"):
        path.write_bytes(_lowered(exportable.fused(), exportable.example(), facts))


def quantize_executorch(exportable: Exportable, path: Path, images: npt.NDArray[Any], *, facts: dict[str, Any]) -> None:
    """Write the network in 8 bits (PT2E with XNNPACK's quantizer), weights by output channel.

    ``images [N, ...]``, as the network takes them, give the ranges of the activations. In a network with layer norms
    (see the ONNX files) linear layers and convolutions alone are quantized.
    """
    network, example = exportable.fused(), exportable.example()
    normed = any(isinstance(each, nn.LayerNorm | nn.GroupNorm) for each in network.modules())
    with library("executorch-int8"):
        quantization = import_module("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")
        pt2e = import_module("torchao.quantization.pt2e.quantize_pt2e")
        config = quantization.get_symmetric_quantization_config(is_per_channel=True)
        quantizer = quantization.XNNPACKQuantizer()
        if normed:
            for operator in (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default):
                quantizer.set_operator_type(operator, config)
        else:
            quantizer.set_global(config)
        prepared = pt2e.prepare_pt2e(torch.export.export(network, (example,)).module(), quantizer)
        with torch.inference_mode():
            for image in images:
                prepared(torch.from_numpy(image[None]))
        path.write_bytes(_lowered(pt2e.convert_pt2e(prepared), example, facts))


def _lowered(network: nn.Module, example: Tensor, facts: dict[str, Any]) -> bytes:
    partitioner = import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    program = import_module("executorch.exir").to_edge_transform_and_lower(
        torch.export.export(network, (example,)),
        partitioner=[partitioner.XnnpackPartitioner()],
        constant_methods={_FACTS: json.dumps(facts)},
    )
    return bytes(program.to_executorch().buffer)


class ExecuTorchRunner:
    """A program in ExecuTorch's own runtime, one image at a time."""

    def __init__(self, path: Path, *, threads: int) -> None:
        runtime = import_module("executorch.runtime")
        bindings = import_module("executorch.extension.pybindings.portable_lib")
        bindings._unsafe_reset_threadpool(threads)  # unsafe only while a program runs
        self._program = runtime.Runtime.get().load_program(path)
        self._method = self._program.load_method("forward")

    @property
    def facts(self) -> dict[str, Any]:
        """What the file says of itself."""
        if _FACTS not in self._program.method_names:
            return {}
        found: dict[str, Any] = json.loads(self._program.load_method(_FACTS).execute([])[0])
        return found

    def __call__(self, images: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
        """``[B, ...]`` → one array ``[B, ...]`` for each output."""
        rows = [
            [part.numpy().copy() for part in self._method.execute([torch.from_numpy(image[None])])] for image in images
        ]
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]
