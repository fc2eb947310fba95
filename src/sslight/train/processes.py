"""How the processes of a run agree, average their measurements and fail together."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn

from sslight.data import DataFingerprint, StoreUnavailable
from sslight.train.machine.distributed import gathered, rank_and_size
from sslight.train.record.run_folder import RunFolder, changed_settings, package_versions
from sslight.train.task import RunSettings

_CONNECTION_LOST = re.compile(r"gloo|nccl|connection (closed|reset) by peer", re.IGNORECASE)
_OWN_OF_A_PROCESS = ("output", "data.", "devices", "workers", "logger", "read_timeout")
"""Settings that may differ between processes; what data gives is compared itself."""

_SAME_EVERYWHERE = ("sslight", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "numba", "pillow")


class AnotherProcessFailed(RuntimeError):
    """The end of this process because another one failed; that one says why."""


@contextmanager
def failing_together() -> Iterator[None]:
    """At the end of the block, an error in one process ends all of them before any continues.

    The first process that failed raises its own error, which names the process if others succeeded; all others raise
    AnotherProcessFailed. Errors not meant for users break the connection.
    """
    error: Exception | None = None
    try:
        yield
    except (ValueError, OSError, StoreUnavailable) as caught:
        error = caught
    errors = gathered(None if error is None else str(error))
    failed = [rank for rank, text in enumerate(errors) if text is not None]
    if not failed:
        return
    rank, size = rank_and_size()
    if error is None or rank != failed[0]:
        raise AnotherProcessFailed(f"process {failed[0]} failed: {errors[failed[0]]}") from error
    if isinstance(error, ValueError) and len(failed) < len(errors):
        raise ValueError(f"{error} (process {rank} of {size}, on {socket.gethostname()})") from error
    raise error


@contextmanager
def ending_with_others() -> Iterator[None]:
    """Raise AnotherProcessFailed if another process broke the connection by ending; other errors are raised as they
    are.
    """
    try:
        yield
    except RuntimeError as error:
        # Gloo raises a plain RuntimeError; those of this program are of their own types.
        lost = type(error) is RuntimeError and _CONNECTION_LOST.search(str(error)) is not None
        broken = lost or isinstance(error, dist.DistError)
        if not dist.is_initialized() or dist.get_world_size() == 1 or not broken:
            raise
        raise AnotherProcessFailed(f"another process ended ({str(error).splitlines()[0]})") from error


def check_agreement(settings: RunSettings, data: DataFingerprint, run: RunFolder) -> None:
    """Compare what every process sees with what the first one sees. All processes must call this.

    Raises ValueError in all of them if versions, settings, images or checkpoints differ.
    """
    own = {
        "host": socket.gethostname(),
        "versions": package_versions(_SAME_EVERYWHERE),
        "settings": settings,
        "data": data,
        "continues": run.continues,
    }
    first, *others = gathered(own)
    for rank, other in enumerate(others, start=1):
        difference = _difference(first, other, run)
        if difference is not None:
            raise ValueError(f"process {rank} on {other['host']} and process 0 on {first['host']} differ: {difference}")


def _difference(first: dict[str, Any], other: dict[str, Any], run: RunFolder) -> str | None:
    """The first difference as the end of a sentence; ``other`` is named first."""
    for name, version in first["versions"].items():
        if other["versions"][name] != version:
            return f"{name} {other['versions'][name]} and {version}: install the same versions everywhere."
    changed = changed_settings(first["settings"], other["settings"], free=_OWN_OF_A_PROCESS)
    if changed:
        key, before, now = changed[0]
        return f"{key}={now} and {key}={before}: start all processes with the same recipe and settings."
    differs = data_difference(other["data"], first["data"])
    if differs is not None:
        return f"data.train has {differs}: copy the same files everywhere, or give a path that all machines share."
    if other["continues"] != first["continues"]:
        with_, without = ("the first", "the second") if other["continues"] else ("the second", "the first")
        return (
            f"output={run.path} holds a checkpoint on {with_} machine and none on {without}: "
            "it must be a folder that all machines share."
        )
    return None


def data_difference(one: DataFingerprint, other: DataFingerprint) -> str | None:
    """The first difference between two sets of images, as words that follow "has"; None if they are the same."""
    if one.num_images != other.num_images:
        return f"{one.num_images} images, not {other.num_images}"
    kinds = ("names", "labels", "contents")
    differing = next((kind for kind in kinds if getattr(one, kind) != getattr(other, kind)), None)
    return None if differing is None else f"{one.num_images} images with other {differing}"


def mean_scalars(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of each scalar over the accumulated parts of a step."""
    return {name: torch.stack([part[name].float() for part in parts]).mean() for name in parts[0]}


def reduce_scalars(fabric: Fabric, scalars: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mean of each scalar over the processes."""
    values = torch.stack([value.float() for value in scalars.values()])
    reduced = fabric.all_reduce(values, reduce_op="mean")
    assert isinstance(reduced, Tensor)
    return dict(zip(scalars, reduced.cpu(), strict=True))


def agreed(flags: list[bool], hosts: dist.ProcessGroup | None, step: int) -> list[bool]:
    """Each flag, true if any process has it; processes ask each other every 10 steps, without waiting for GPUs."""
    if hosts is None:
        return flags
    if step % 10:
        return [False] * len(flags)
    anywhere = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(anywhere, group=hosts)
    return [count > 0 for count in anywhere.tolist()]


def agree_on_buffers(module: nn.Module, fabric: Fabric) -> None:
    """Without synchronized batch norm, each process has its own statistics: all take those of the first."""
    for buffer in module.buffers() if fabric.world_size > 1 else ():
        dist.broadcast(buffer, src=0)
