"""Seconds and peak memory of every protocol, and of kNN on large random features.

``python benchmarks/evaluation.py TRAIN VAL [KEY=VALUE...]``: each protocol in a process of its own, first with an
empty feature cache and then with a full one. Words are settings of ``sslight evaluate`` such as image_size=64;
the exact protocol and fine-tuning run for one epoch, to be multiplied. On a machine that others use too, the seconds
of processor time are the ones to look at.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from sslight.evaluate import knn_classify

_BACKBONE = "timm:mobilenetv2_100"
_RUNS = {
    "knn, features computed": ("knn", []),
    "knn, features from the cache": ("knn", []),
    "linear fast, features from the cache": ("linear", ["linear.mode=fast"]),
    "linear exact, 1 epoch": ("linear", ["linear.epochs=1"]),
    "semi, 10 % of the labels, 1 epoch": ("semi", ["data.subset=0.1", "semi.epochs=1"]),
}
_BANK, _QUERIES, _DIM = 100_000, 10_000, 1280


def main() -> None:
    """Print a Markdown table."""
    train, val, *words = sys.argv[1:]
    print("| what | seconds | processor seconds | peak memory (MiB) |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, (protocol, more)) in enumerate(_RUNS.items()):
            places = [f"output={folder}/{number}", *([] if protocol == "semi" else [f"cache={folder}/cache"])]
            command = [sys.executable, "-m", "sslight", "evaluate", protocol, _BACKBONE, "--json"]
            command += [f"data.train={train}", f"data.val={val}", *words, *more, *places]
            before = _processor_seconds(resource.RUSAGE_CHILDREN)
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            result = json.loads(done.stdout)
            used = _processor_seconds(resource.RUSAGE_CHILDREN) - before
            print(_row(name, result["seconds"], used, result["peak_memory_mib"]["host"]), flush=True)
    print(_knn_row())


def _knn_row() -> str:
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.randn(n, _DIM, generator=generator) for n in (_BANK, _QUERIES))
    labels = torch.arange(_BANK) % 1000
    started, before = time.perf_counter(), _processor_seconds(resource.RUSAGE_SELF)
    knn_classify(bank, labels, queries, k=200, temperature=0.07, num_classes=1000)
    seconds, used = time.perf_counter() - started, _processor_seconds(resource.RUSAGE_SELF) - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10  # KiB on Linux
    name = f"kNN alone, {_BANK:,} × {_QUERIES:,} at {_DIM}, k = 200, {torch.get_num_threads()} threads"
    return _row(name, seconds, used, peak)


def _row(name: str, seconds: float, processor_seconds: float, peak_mib: int) -> str:
    return f"| {name} | {seconds:.1f} | {processor_seconds:.1f} | {peak_mib:,} |"


def _processor_seconds(whose: int) -> float:
    usage = resource.getrusage(whose)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    assert Path(sys.argv[1]).exists() or ":" in sys.argv[1], __doc__
    os.environ.setdefault("PYTHONPATH", os.pathsep.join(sys.path))
    main()
