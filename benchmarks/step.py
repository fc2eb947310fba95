"""One training step: this program against a step written plainly after the published description.

Each side lives in a process of its own (its allocator and threads are its own) and they take turns, so that a busy
machine slows them alike. Both start from the same weights and see the same views. Times are medians over rounds, in
wall-clock and in processor time, which other programs disturb less. There is no option to run a copy of the
original: its programs take whole runs, not steps. See `original_step.py` for what the other side is.

    python benchmarks/step.py [--backbones mobilenet_v2 resnet18 vit_tiny] [--batch-size 32] [--device cuda]
        [--floor] [--curves loss.png --curve-steps 200] [--json]
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from floor import floor
from original_step import OriginalStep

from sslight.config import PretrainSettings, load_recipe, parse_assignments
from sslight.data import SyntheticSource, decode
from sslight.methods import DINO, StepValues, build_method
from sslight.optim import build_optimizer, parameter_groups, set_rates
from sslight.train.machine.memory import keep_freed_memory
from sslight.views import ViewBatch, build_multi_crop, collate, normalize

SIDES = {"original": torch.float32, "sslight float32": torch.float32, "sslight bf16": torch.bfloat16}
_MOMENTUM, _TEACHER_TEMP, _LR = 0.996, 0.04, 0.05
_BATCHES = 4


def settings_for(backbone: str, recipe: str, batch_size: int, changes: dict[str, Any]) -> PretrainSettings:
    """The recipe's settings; a ViT takes those of the ViT recipe of the same size."""
    if "vit" in backbone:
        recipe = recipe.replace("_cnn_", "_vit_")
    return load_recipe(recipe, {"backbone": backbone, "batch_size": batch_size, "drop_path": 0.0, **changes})


def drawn_batches(settings: PretrainSettings) -> list[ViewBatch]:
    """A few batches of views of drawn images, the same in every process."""
    multi_crop, size = build_multi_crop(settings.views), settings.batch_size
    source = SyntheticSource(_BATCHES * size, size=128, labeled=False)
    samples = [(multi_crop(decode(source.read(i)), (0, 0, i)), i, None) for i in range(len(source))]
    batches = [samples[start : start + size] for start in range(0, len(samples), size)]
    return [collate(batch, num_global=settings.views.num_global) for batch in batches]


def original_step(settings: PretrainSettings, method: DINO, device: str) -> Callable[[int], float]:
    """The other side's step on batch i; its views are ready as float32, as its workers leave them."""
    step, views = OriginalStep(settings, method, device), settings.views
    ready = []
    for batch in drawn_batches(settings):
        assert batch.local_views is not None
        parts = [normalize(x, views.mean, views.std) for x in (batch.global_views, batch.local_views)]
        ready.append([v.contiguous() for part in parts for v in torch.split(part, settings.batch_size)])

    def run(i: int) -> float:
        on_device = [view.to(device) for view in ready[i % _BATCHES]]
        return step(on_device, lr=_LR, momentum=_MOMENTUM, teacher_temp=_TEACHER_TEMP)

    return run


def sslight_step(settings: PretrainSettings, method: DINO, device: str, dtype: torch.dtype) -> Callable[[int], object]:
    """Our side: the step on batch i, from uint8 views, as the training loop takes it."""
    if device == "cpu":
        keep_freed_memory()
    method.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(settings.optim, parameter_groups(method))
    values, views = StepValues(momentum=_MOMENTUM, teacher_temp=_TEACHER_TEMP), settings.views
    ready = [batch.pin_memory() if device == "cuda" else batch for batch in drawn_batches(settings)]

    def run(i: int) -> object:
        batch = ready[i % _BATCHES].to(device)
        assert batch.local_views is not None
        set_rates(optimizer, lr=_LR, weight_decay=settings.optim.weight_decay)
        method.begin_step(values)
        inputs = [normalize(x, views.mean, views.std) for x in (batch.global_views, batch.local_views)]
        with torch.autocast(device, dtype, enabled=dtype is not torch.float32):
            out = method(*inputs, values)
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.end_step(values)
        return out.loss.detach()

    return run


def serve(side: str, settings: PretrainSettings, options: argparse.Namespace, pipe: Connection) -> None:
    """The process of one side: takes steps when asked to."""
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    method = build_method(settings)
    assert isinstance(method, DINO)
    device: str = options.device
    run: Callable[[int], object]
    if side == "original":
        run = original_step(settings, method, device)
    else:
        run = sslight_step(settings, method, device, SIDES[side])
    done = 0
    while (request := pipe.recv()) is not None:
        if request == "floor":
            pipe.send(asdict(floor(lambda: run(0), device, SIDES[side])))
            continue
        wall, cpu = time.perf_counter(), time.process_time()
        losses = [run(i) for i in range(done, done + request)]
        if device == "cuda":
            torch.cuda.synchronize()
        times = ((time.perf_counter() - wall) / request, (time.process_time() - cpu) / request)
        done += request
        peak = torch.cuda.max_memory_allocated() if device == "cuda" else _resident_peak()
        pipe.send({"times": times, "losses": [float(loss) for loss in losses], "peak": peak})  # type: ignore[arg-type]


def _resident_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(backbone: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run all sides of one backbone in turns."""
    settings = settings_for(backbone, options.recipe, options.batch_size, parse_assignments(options.set))
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for side in SIDES:
        pipes[side], child = context.Pipe()
        processes.append(context.Process(target=serve, args=(side, settings, options, child), daemon=True))
        processes[-1].start()

    def ask(side: str, request: object) -> Any:
        pipes[side].send(request)
        return pipes[side].recv()

    losses: dict[str, list[float]] = {side: [] for side in SIDES}
    for side in SIDES:
        losses[side] += ask(side, options.warmup)["losses"]
    walls: dict[str, list[float]] = {side: [] for side in SIDES}
    cpus: dict[str, list[float]] = {side: [] for side in SIDES}
    peaks: dict[str, int] = {}
    for _ in range(options.rounds):
        for side in SIDES:
            answer = ask(side, options.steps)
            walls[side].append(answer["times"][0])
            cpus[side].append(answer["times"][1])
            losses[side] += answer["losses"]
            peaks[side] = answer["peak"]
    if options.curves:
        for side in SIDES:
            losses[side] += ask(side, max(1, options.curve_steps - len(losses[side])))["losses"]
    floors = {side: ask(side, "floor") for side in SIDES} if options.floor else {}
    for pipe in pipes.values():
        with suppress(BrokenPipeError):
            pipe.send(None)
    for process in processes:
        process.join()
    pairs = zip(losses["original"], losses["sslight float32"], strict=True)
    return {
        "backbone": backbone,
        "sides": {
            side: {
                "ms": 1000 * statistics.median(walls[side]),
                "cpu_ms": 1000 * statistics.median(cpus[side]),
                "speedup": _ratio(walls["original"], walls[side]),
                "cpu_speedup": _ratio(cpus["original"], cpus[side]),
                "peak_mib": peaks[side] / 2**20,
                **({"floor": floors[side]} if floors else {}),
            }
            for side in SIDES
        },
        "largest_loss_difference": max(abs(a - b) / abs(a) for a, b in pairs),
        "losses": losses,
    }


def _ratio(others: list[float], ours: list[float]) -> float:
    """Median over rounds of the ratio within a round, in which both met the same machine."""
    return statistics.median(other / own for other, own in zip(others, ours, strict=True))


def draw_curves(results: list[dict[str, Any]], path: Path) -> None:
    """The losses of all sides, one panel a backbone."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(5 * len(results), 4), squeeze=False)
    for axis, result in zip(axes[0], results, strict=True):
        for side, values in result["losses"].items():
            axis.plot(range(1, len(values) + 1), values, label=side, alpha=0.7)
        axis.set(title=result["backbone"], xlabel="step", ylabel="loss")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path)


def print_tables(results: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Markdown."""
    device = torch.cuda.get_device_name() if options.device == "cuda" else _processor()
    threads = options.threads or torch.get_num_threads()
    print(
        f"{options.recipe}, {options.batch_size} images a step; {device}, {threads} threads, torch {torch.__version__}"
    )
    print(f"{options.rounds} interleaved rounds of {options.steps} steps, medians\n")
    print("| backbone | side | ms a step | × original | processor ms | × original | peak MiB |")
    print("|---|---|---|---|---|---|---|")
    for result in results:
        for name, side in result["sides"].items():
            print(
                f"| {result['backbone']} | {name} | {side['ms']:.0f} | {side['speedup']:.2f} | {side['cpu_ms']:.0f} "
                f"| {side['cpu_speedup']:.2f} | {side['peak_mib']:.0f} |"
            )
    print()
    for result in results:
        difference, steps = result["largest_loss_difference"], len(result["losses"]["original"])
        print(f"{result['backbone']}: over {steps} steps the float32 losses differ by {difference:.1e} at most.")
        for name, side in result["sides"].items():
            if "floor" in side:
                work, seconds = side["floor"], side["ms"] / 1000
                print(
                    f"  {name}: {work['flops'] / 1e9:.0f} GFLOP and {work['num_bytes'] / 2**30:.1f} GiB of traffic; at "
                    f"peak {1000 * work['flop_seconds']:.0f} and {1000 * work['byte_seconds']:.0f} ms, "
                    f"{work['flop_seconds'] / seconds:.0%} and {work['byte_seconds'] / seconds:.0%} of the step."
                )


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, or JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["mobilenet_v2", "resnet18", "vit_tiny"])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings other than the recipe's")
    parser.add_argument("--recipe", default="dino_cnn_sslight_64", help="a DINO recipe for CNNs")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="of each side's process; PyTorch's own choice if left out")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="of each side in a round")
    parser.add_argument("--floor", action="store_true", help="count arithmetic and memory traffic")
    parser.add_argument("--curves", type=Path, help="draw the losses of all sides into this PNG (needs matplotlib)")
    parser.add_argument("--curve-steps", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line sets it
    results = [measure(backbone, options) for backbone in options.backbones]
    if options.curves:
        draw_curves(results, options.curves)
    if options.json:
        print(json.dumps(results))
    else:
        print_tables(results, options)


if __name__ == "__main__":
    main()
