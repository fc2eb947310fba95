"""ExecuTorch programs for XNNPACK. Needs the extra ``executorch``."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sslight.export.network import Exportable
from sslight.export.onnx_file import library

_FACTS = "sslight"  # a method of the program without input, which gives JSON


def write_executorch(exportable: Exportable, path: Path, *, facts: dict[str, Any]) -> None:
    """Write the network for one image at a time, in float32, lowered to XNNPACK; ``facts`` go into the file."""
    with library("executorch"):
        partitioner = import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
        exir = import_module("executorch.exir")
        size = exportable.info.image_size
        example = torch.from_numpy(exportable.as_input(torch.zeros(1, 3, size, size, dtype=torch.uint8)))
        program = exir.to_edge_transform_and_lower(
            torch.export.export(exportable.fused(), (example,)),
            partitioner=[partitioner.XnnpackPartitioner()],
            constant_methods={_FACTS: json.dumps(facts)},
        )
        path.write_bytes(program.to_executorch().buffer)


class ExecuTorchRunner:
    """A program in ExecuTorch's own runtime, an image at a time."""

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
