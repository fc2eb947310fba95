"""What a step's forward pass keeps for its backward pass, and what keeping less costs in time.

    OMP_NUM_THREADS=1 python benchmarks/saved.py > benchmarks/results/memory.md

Bytes are those of the tensors that reach ``torch.autograd.graph.saved_tensors_hooks``, each storage once, without
weights, buffers and the views themselves; of two batches, so that what does not grow with the images is left out.
Times are processor time of forward and backward pass, in turns, on the CPU.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from sslight.backbones import norms_computed_again
from sslight.backbones.recomputing import pack, pack_largest, unpack
from sslight.config import PretrainSettings, load_recipe
from sslight.methods import Method, build_method
from sslight.pretraining.schedule import RunLength, values_at
from sslight.train.machine.memory import keep_freed_memory

MODES: dict[str, Any] = {"PyTorch's ReLU6": False, "false": False, "norms": "norms", "true": True}
WAYS = {"false": pack_largest, "norms": pack}


def built(settings: PretrainSettings, name: str) -> Method:
    """The method in one of the modes."""
    torch.manual_seed(0)
    method = build_method(settings.model_copy(update={"grad_checkpointing": MODES[name]}))
    if name == "PyTorch's ReLU6":
        for module in method.modules():
            if isinstance(module, nn.ReLU6):
                module.__class__ = nn.ReLU6
    return method.to(memory_format=torch.channels_last)


def views(settings: PretrainSettings, images: int) -> list[Tensor]:
    """Random ones."""
    sides = (
        (settings.views.num_global, settings.views.global_size),
        (settings.views.num_local, settings.views.local_size),
    )
    torch.manual_seed(1)
    return [torch.randn(n * images, 3, s, s).to(memory_format=torch.channels_last) for n, s in sides]


def kept_bytes(settings: PretrainSettings, name: str, images: int) -> int:
    """Of one forward pass."""
    method, inputs, values = built(settings, name), views(settings, images), values_at(0, settings, RunLength(1, 1))
    known = {t.untyped_storage().data_ptr() for t in [*method.parameters(), *method.buffers(), *inputs]}
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Any:
        packed = WAYS[name](tensor) if name in WAYS else tensor
        if isinstance(packed, Tensor) and packed.untyped_storage().data_ptr() not in known:
            known.add(packed.untyped_storage().data_ptr())
            kept.append(packed)
        return packed

    method.begin_step(values)
    with torch.autograd.graph.saved_tensors_hooks(keep, unpack):
        method(*inputs, values)
    return sum(t.untyped_storage().nbytes() for t in kept)


def seconds(settings: PretrainSettings, images: int, rounds: int) -> dict[str, float]:
    """Median over rounds of each mode's processor time as a share of the first one's in the same round."""
    inputs, values = views(settings, images), values_at(0, settings, RunLength(1, 1))

    def step(name: str) -> Callable[[], None]:
        method = built(settings, name)

        def run() -> None:
            method.begin_step(values)
            with norms_computed_again(largest_only=name == "false") if name in WAYS else nullcontext():
                loss = method(*inputs, values).loss
            loss.backward()
            method.zero_grad()
            method.end_step(values)

        run()
        return run

    steps = {name: step(name) for name in MODES}
    times: dict[str, list[float]] = {name: [] for name in MODES}
    for _ in range(rounds):
        for name, run in steps.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    first = next(iter(times.values()))
    return {name: statistics.median(t / f for t, f in zip(own, first, strict=True)) for name, own in times.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4, help="of the timed steps")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    keep_freed_memory()
    print("| recipe | backbone | grad_checkpointing | MB an image | time, of the first row's |\n|---|---|---|---|---|")
    for recipe, backbone in (
        ("dino_cnn_sslight", "mobilenet_v2"),
        ("dino_cnn_sslight", "resnet18"),
        ("dino_vit_sslight", "vit_tiny"),
    ):
        settings = load_recipe(recipe, {"backbone": backbone, "drop_path": 0.0})
        shares = seconds(settings, given.images, given.rounds)
        for name, share in shares.items():
            megabytes = (kept_bytes(settings, name, 4) - kept_bytes(settings, name, 2)) / 2e6
            print(f"| {recipe} | {backbone} | {name} | {megabytes:.1f} | {share:.2f} |", flush=True)


if __name__ == "__main__":
    main()
