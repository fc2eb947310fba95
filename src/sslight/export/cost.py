"""Latency of one image at a time on this machine's CPU."""

import platform
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from sslight.data import available_cores

_WARM_UP = 3
_RUNS_IN_A_ROW = 5


def latencies(runs: dict[str, Callable[[], object]], *, num_runs: int) -> dict[str, float]:
    """Median time in ms of each run, taken in turn, a few at a time, so that a busy moment hits all alike."""
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
    """Name of the processor, cores that this process may use, operating system."""
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
