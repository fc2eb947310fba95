"""The cost of one image: counted for the network, and its latency on this machine's CPU."""

import platform
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sslight.data import available_cores

_VIEWS = {"view", "reshape", "permute", "transpose", "flatten", "unsqueeze", "squeeze", "slice", "select", "split", "t"}
_WARM_UP = 3
_RUNS_IN_A_ROW = 5


def latencies(runs: dict[str, Callable[[], object]], *, num_runs: int) -> dict[str, float]:
    """Median time in ms of each run; they take turns, a few runs at a time, so that a busy moment affects all."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(_WARM_UP):
            run()
    while any(len(found) < num_runs for found in times.values()):
        for name, run in runs.items():
            run()  # brings its own memory back into the caches; not counted
            for _ in range(min(_RUNS_IN_A_ROW, num_runs - len(times[name]))):
                started = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - started)
    return {name: round(1000 * median(found), 3) for name, found in times.items()}


def device_facts() -> dict[str, Any]:
    """The processor, the cores that this process may use, the operating system."""
    processor = platform.processor() or platform.machine()
    with suppress(OSError):
        if found := re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text(errors="replace")):
            processor = found[1].strip()
    return {
        "processor": processor,
        "cores": available_cores(),
        "machine": platform.machine(),
        "system": platform.platform(),
    }


def cost_of(network: nn.Module, example: Tensor) -> dict[str, Any]:
    """The cost of one image for the network alone: counted, not measured."""
    try:
        peak = _peak_bytes(torch.export.export(network, (example,)).graph)
    except Exception:  # of types of its own: a file of weights is none the worse for a network that it cannot trace
        peak = None
    multiply_adds = None
    with suppress(Exception):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network(example)
        multiply_adds = counter.get_total_flops() // 2
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "multiply_adds": multiply_adds,  # of convolutions and matrix products; None: not counted
        "peak_activation_bytes": peak,  # float32, every operation's result in memory of its own; None: not counted
    }


def _peak_bytes(graph: torch.fx.Graph) -> int:
    """Largest sum of results alive at once: from their computation to their last use, or that of their views."""
    owner: dict[Any, torch.fx.Node] = {}  # of a view what it shows; of all else itself
    last: dict[torch.fx.Node, int] = {}
    for at, node in enumerate(graph.nodes):
        if node.op in ("call_function", "placeholder") and not node.name.startswith(("p_", "b_", "c_")):
            views = str(node.target).rpartition("aten.")[2].partition(".")[0] in _VIEWS
            owner[node] = owner.get(node.args[0], node) if views else node
        for used in (node, *node.all_input_nodes):
            if used in owner:
                last[owner[used]] = at
    alive, peak = 0, 0
    ends = {at: [node for node, end in last.items() if end == at] for at in {*last.values()}}
    for at, node in enumerate(graph.nodes):
        alive += _num_bytes(node) if node in owner and owner[node] == node else 0
        peak = max(peak, alive)
        alive -= sum(_num_bytes(ended) for ended in ends.get(at, ()))
    return peak


def _num_bytes(node: torch.fx.Node) -> int:
    values = node.meta["val"]
    tensors = values if isinstance(values, tuple | list) else (values,)
    return sum(each.numel() * each.element_size() for each in tensors if isinstance(each, Tensor))
