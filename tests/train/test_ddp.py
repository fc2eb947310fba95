"""What two processes send each other besides gradients."""

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sslight.train import build_fabric, place
from sslight.train.machine.distributed import host_group
from sslight.train.processes import agreed
from tests.conftest import tiny_settings
from tests.processes import in_two


def wrapped(fabric: Fabric) -> DistributedDataParallel:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    setup, _ = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    ddp = setup._forward_module
    assert isinstance(ddp, DistributedDataParallel)
    return ddp


def one_of_two() -> None:
    fabric = build_fabric(tiny_settings(output="run"), place("cpu"))
    fabric.launch()
    ddp, rank = wrapped(fabric), dist.get_rank()
    norm = ddp.module[1]
    for shift in (0.0, 10.0 * rank):
        ddp(torch.randn(8, 3) + shift).square().mean().backward()
    means = [torch.empty(4) for _ in range(2)]
    dist.all_gather(means, norm.running_mean)
    assert not torch.equal(*means)
    grad = ddp.module[0].weight.grad
    assert grad._base is not None  # a view of the bucket that was sent

    hosts = host_group()
    assert agreed([rank == 1, False], hosts, step=20) == [True, False]
    assert agreed([rank == 1, True], hosts, step=21) == [False, False]
    dist.destroy_process_group()


def test_gradients_are_views_of_buckets_buffers_stay_and_flags_go_from_host_to_host() -> None:
    in_two(one_of_two)


def test_a_process_alone_asks_nobody() -> None:
    assert host_group() is None
    assert agreed([True, False], None, step=21) == [True, False]
