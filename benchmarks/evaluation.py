"""Seconds and peak memory of every protocol, and of kNN on large random features.

``python benchmarks/evaluation.py TRAIN VAL [KEY=VALUE...]``: each protocol in a process of its own, first with an
empty feature cache and then with a full one. Words are settings of ``sslight evaluate`` such as image_size=64;
the exact protocol and fine-tuning run for two epochs, so that their cost an epoch can be told.
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
    "linear exact, 2 epochs": ("linear", ["linear.epochs=2"]),
    "linear exact, 4 epochs": ("linear", ["linear.epochs=4"]),
    "semi, 10 % of the labels, 2 epochs": ("semi", ["data.subset=0.1", "semi.epochs=2"]),
    "semi, 10 % of the labels, 4 epochs": ("semi", ["data.subset=0.1", "semi.epochs=4"]),
}
_BANK, _QUERIES, _DIM = 100_000, 10_000, 1280


def main() -> None:
    """Print a Markdown table."""
    train, val, *words = sys.argv[1:]
    print("| what | seconds | peak memory (MiB) |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, (protocol, more)) in enumerate(_RUNS.items()):
            places = [f"output={folder}/{number}", *([] if protocol == "semi" else [f"cache={folder}/cache"])]
            command = [sys.executable, "-m", "sslight", "evaluate", protocol, _BACKBONE, "--json"]
            command += [f"data.train={train}", f"data.val={val}", *words, *more, *places]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            result = json.loads(done.stdout)
            print(f"| {name} | {result['seconds']:.1f} | {result['peak_memory_mib']['host']:,} |", flush=True)
    print(_knn_row())


def _knn_row() -> str:
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.randn(n, _DIM, generator=generator) for n in (_BANK, _QUERIES))
    labels = torch.arange(_BANK) % 1000
    started = time.perf_counter()
    knn_classify(bank, labels, queries, k=200, temperature=0.07, num_classes=1000)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10  # KiB on Linux
    name = f"kNN alone, {_BANK:,} × {_QUERIES:,} at {_DIM}, k = 200, {torch.get_num_threads()} threads"
    return f"| {name} | {seconds:.1f} | {peak:,} |"


if __name__ == "__main__":
    assert Path(sys.argv[1]).exists() or ":" in sys.argv[1], __doc__
    os.environ.setdefault("PYTHONPATH", os.pathsep.join(sys.path))
    main()
