"""The processes that work together; without torch.distributed there is one."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch.distributed as dist
from torch import Tensor

_T = TypeVar("_T")


def rank_and_size() -> tuple[int, int]:
    """The rank of this process and the number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def host_group() -> dist.ProcessGroup | None:
    """A group in which hosts talk while their GPUs work; None with one process. All processes must call this."""
    if rank_and_size()[1] == 1:
        return None
    group = dist.new_group(backend="gloo")
    assert isinstance(group, dist.ProcessGroup)
    return group


def own_share(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The part of this process, of rows that are split evenly, in order and without padding."""
    rank, size = rank_and_size()
    return np.array_split(rows, size)[rank]


def sum_over_processes(value: Tensor) -> None:
    """Replace a tensor by its sum over all processes."""
    if rank_and_size()[1] > 1:
        dist.all_reduce(value)


def from_first(value: _T) -> _T:
    """The value that the first process has."""
    values = [value]
    if rank_and_size()[1] > 1:
        dist.broadcast_object_list(values)
    return values[0]


def gathered(value: _T) -> list[_T]:
    """The values of all processes, by rank."""
    values = [value] * rank_and_size()[1]
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait for all processes."""
    if rank_and_size()[1] > 1:
        dist.barrier()
