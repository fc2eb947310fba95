"""Memory as `sslight plan` predicts it, against the peak of a real run of a few steps.

    OMP_NUM_THREADS=1 python benchmarks/memory.py

prints the table of benchmarks/results/plan.md.

Each run is a process of its own, which decodes and trains in one: its peak is the high-water mark of its resident
memory (VmHWM of Linux) less what it had when everything was imported. On a GPU it is the allocator's peak.
"""

import argparse
import io
import multiprocessing
import platform
import re
from contextlib import redirect_stderr
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from sslight.config import PretrainSettings, load_recipe
from sslight.data import SyntheticSource
from sslight.pretraining.memory import Mode, predict_memory
from sslight.pretraining.speed import step_speed
from sslight.train import place

RUNS = {"mobilenet_v2": (16, 32, 64), "resnet18": (32, 64, 128), "vit_tiny": (4, 8, 16)}


def settings_for(backbone: str, batch: int, precision: str, mode: Mode) -> PretrainSettings:
    """A plan's own settings for small images."""
    recipe = "dino_vit_sslight_64" if backbone.startswith("vit") else "dino_cnn_sslight_64"
    changes = {"backbone": backbone, "batch_size": batch, "precision": precision, "grad_checkpointing": mode}
    return load_recipe(
        recipe, {**changes, "workers": 0, "views.num_local": 2, "dino.head_output_dim": 1024, "optim.min_lr": 0}
    )


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def run(settings: PretrainSettings, answer: Connection) -> None:
    """Take a few steps, and send how much memory they took."""
    source = SyntheticSource(512, size=64, labeled=False)
    before = resident("VmRSS")
    with redirect_stderr(io.StringIO()):
        speed = step_speed(settings, source, steps=2)
    on_gpu = not speed.device.startswith("cpu")
    answer.send(torch.cuda.max_memory_allocated() if on_gpu else resident("VmHWM") - before)


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=list(RUNS))
    parser.add_argument("--precisions", nargs="+", default=["32", "bf16"])
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    print("DINO, views of 64 and 36 px, MiB above the start of the process; ", end="")
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}.\n\n    python benchmarks/memory.py\n"
    )
    print("| backbone | precision | checkpointing | images | predicted | measured | difference |")
    print("|---|---|---|---|---|---|---|")
    for backbone in given.backbones:
        for precision in given.precisions:
            device = place("auto").accelerator
            memory = predict_memory(settings_for(backbone, 8, precision, False), device)
            rows = [(batch, False) for batch in RUNS[backbone]] + [(RUNS[backbone][-1], m) for m in memory.modes[1:]]
            for batch, mode in rows if precision == "32" else rows[1:2]:
                here, there = context.Pipe()
                settings = settings_for(backbone, batch, precision, mode)
                process = context.Process(target=run, args=(settings, there))
                process.start()
                measured = here.recv() / 2**20
                process.join()
                predicted = memory.peak(batch, mode=mode) / 2**20
                cells = [
                    backbone,
                    precision,
                    str(mode).lower(),
                    str(batch),
                    f"{predicted:,.0f}",
                    f"{measured:,.0f}",
                ]
                print("| " + " | ".join([*cells, f"{predicted / measured - 1:+.0%}"]) + " |", flush=True)


if __name__ == "__main__":
    main()
