"""Means, sums and rows over the processes of torch.distributed; without it there is one process."""

import torch
import torch.distributed as dist
from torch import Tensor


def num_processes() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def mean_over_processes(x: Tensor) -> Tensor:
    """The mean of ``x`` over the processes; ``x`` stays as it is."""
    if num_processes() == 1:
        return x
    total = x.clone()
    dist.all_reduce(total)
    return total / num_processes()


def gather_rows(rows: Tensor) -> Tensor:
    """The rows ``[N, ...]`` of all processes in rank order, ``[W·N, ...]``; N is the same everywhere; no gradient."""
    if num_processes() == 1:
        return rows
    rows = rows.contiguous()
    gathered = [torch.empty_like(rows) for _ in range(num_processes())]
    dist.all_gather(gathered, rows)
    return torch.cat(gathered)


def log_sum_exp_over_processes(rows: Tensor) -> Tensor:
    """Logarithm of Σ exp of each column of ``[N, P]`` over the rows of all processes: ``[P]``. N may differ."""
    own = rows.logsumexp(0)
    if num_processes() == 1:
        return own
    largest = own.clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    total = (own - largest).exp()
    dist.all_reduce(total)
    return largest + total.log()
