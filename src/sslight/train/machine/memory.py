"""The memory of a training process: its allocator, its peak, and its end in words."""

import ctypes
import os
import platform
import re
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from sslight.train.task import TrainingStopped

_RAN_OUT = re.compile("out of memory|can't allocate memory|ALLOC_FAILED")  # GPU, CPU, cuBLAS and cuDNN

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h of glibc
_NEVER_TRIM, _NO_MMAP, _USUAL_MMAP, _LARGE = -1, 0, 65536, 4 << 20


def keep_freed_memory(*, large_too: bool = True) -> bool:
    """Let the process keep the memory that it frees, for its next step; whether the C library could be told so.

    A step frees all its activations, and the next one asks for the same sizes again. glibc gives large blocks
    back to the system at once, and the system clears every page anew when it is touched: on a CPU that was a
    fifth of a MobileNetV2 step, more on virtual machines. The peak is as before, but stays taken until the
    process ends. Other C libraries are left as they are.

    Without ``large_too``, blocks of 4 MB and more do go back: what is computed again in a backward pass does not fit
    into the gaps that the forward pass left (figures: benchmarks/results/plan.md).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    orders = [(_M_TRIM_THRESHOLD, _NEVER_TRIM), (_M_MMAP_MAX, _NO_MMAP)]
    if not large_too:
        orders[1:] = [(_M_MMAP_MAX, _USUAL_MMAP), (_M_MMAP_THRESHOLD, _LARGE)]
    return all(mallopt(*order) for order in orders)


def peak_memory(device: torch.device) -> dict[str, int]:
    """Largest memory of this process so far, in MiB (mapped files that were read count): ``host``, and ``device``."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device) >> 20
    return peak


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still take: of the GPU; of the machine, or of the container if that leaves less."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo, group = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    if not meminfo.is_file():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    available = re.search(r"MemAvailable:\s+(\d+)", meminfo.read_text())
    assert available is not None
    free = int(available[1]) << 10
    with suppress(OSError, ValueError, KeyError):  # no limit, or no cgroup v2
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        cached = int(stat["inactive_file"]) + int(stat["active_file"])  # of files, given back when it is wanted
        used = int((group / "memory.current").read_text()) - cached
        free = min(free, int((group / "memory.max").read_text()) - used)
    return free


class OutOfMemory(TrainingStopped):
    """Memory of the GPU or of the host ran out."""


@contextmanager
def memory_in_words(device: torch.device, doing: Callable[[], str], remedy: Callable[[], str]) -> Iterator[None]:
    """Raise OutOfMemory where memory runs out inside: what was done, the peak, and the settings that need less.

    What the system kills without a word cannot be told.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        told = isinstance(error, OutOfMemory)
        if told or (not isinstance(error, MemoryError) and not _RAN_OUT.search(str(error))):
            raise
        on_gpu = device.type == "cuda" and not isinstance(error, MemoryError) and "CPU" not in str(error)
        what, peak = ("GPU", "device") if on_gpu else ("machine", "host")
        raise OutOfMemory(
            f"the {what} ran out of memory in {doing()} (this process had {peak_memory(device)[peak]:,} MiB at most): "
            f"{remedy()}"
        ) from error
