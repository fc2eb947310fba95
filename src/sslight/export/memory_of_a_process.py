"""Run as a program of its own by :mod:`sslight.export.cost`: loads a file, runs it, prints its peak memory in MiB."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_RUNS = 5


def main() -> None:
    """Read what to run from the first argument (JSON)."""
    wanted = json.loads(sys.argv[1])
    path, shape, dtype = Path(wanted["path"]), wanted["shape"], wanted["dtype"]
    load = {"pytorch": _pytorch, "onnx": _onnx, "executorch": _executorch}[wanted["kind"]](shape, dtype)
    libraries = _peak()
    run = load(path, wanted["network"])
    for _ in range(_RUNS):
        run()
    whole = _peak()
    print(json.dumps({"process": whole >> 20, "model": (whole - libraries) >> 20}))


def _pytorch(shape: list[int], dtype: str) -> Callable[[Path, str], Callable[[], Any]]:
    import torch

    from sslight.backbones import load_backbone

    torch.set_num_threads(1)

    def load(path: Path, network: str) -> Callable[[], Any]:
        backbone, images = load_backbone(path, network=network), torch.zeros(shape)
        return torch.inference_mode()(lambda: backbone(images))

    return load


def _onnx(shape: list[int], dtype: str) -> Callable[[Path, str], Callable[[], Any]]:
    import numpy as np
    import onnxruntime

    def load(path: Path, network: str) -> Callable[[], Any]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        images = np.zeros(shape, dtype=dtype)
        return lambda: session.run(None, {"images": images})

    return load


def _executorch(shape: list[int], dtype: str) -> Callable[[Path, str], Callable[[], Any]]:
    from importlib import import_module

    import torch

    runtime = import_module("executorch.runtime")

    def load(path: Path, network: str) -> Callable[[], Any]:
        import_module("executorch.extension.pybindings.portable_lib")._unsafe_reset_threadpool(1)
        program = runtime.Runtime.get().load_program(path)
        method, images = program.load_method("forward"), torch.zeros(shape, dtype=getattr(torch, dtype))
        return lambda: (program, method.execute([images]))

    return load


def _peak() -> int:
    """Largest memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # what getrusage counts begins with the memory of the process that started this one
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main()
