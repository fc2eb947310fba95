"""How fast could a step be? Its arithmetic and its memory traffic against what the device gives at most."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Floor:
    """Work of a step, and the seconds it takes at least."""

    flops: int
    num_bytes: int
    flop_seconds: float
    byte_seconds: float


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes that operations read and write; views of memory cost nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        outputs = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        memory = {x.untyped_storage().data_ptr() for x in inputs}
        fresh = [x for x in outputs if x.untyped_storage().data_ptr() not in memory]
        if fresh or str(func).split(".")[1].endswith("_"):
            self.num_bytes += sum(x.numel() * x.element_size() for x in (*inputs, *fresh))
        return result


def floor(step: Callable[[], object], device: str, dtype: torch.dtype) -> Floor:
    """Count one step's operations as they are, unfused; peaks are those of a large product and a large copy."""
    counter, traffic = FlopCounterMode(display=False), _Traffic()
    with counter:
        step()
    with traffic:
        step()
    flops = counter.get_total_flops()
    return Floor(flops, traffic.num_bytes, flops / _peak_flops(device, dtype), traffic.num_bytes / _peak_bytes(device))


def _best_seconds(work: Callable[[], object], device: str) -> float:
    times = []
    for _ in range(6):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def _peak_flops(device: str, dtype: torch.dtype) -> float:
    side = 8192 if device == "cuda" else 2048
    a = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / _best_seconds(lambda: a @ a, device)


def _peak_bytes(device: str) -> float:
    source = torch.ones(1 << (28 if device == "cuda" else 25), device=device)
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / _best_seconds(lambda: target.copy_(source), device)
