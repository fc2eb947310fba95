"""Batches on their way to the device."""

from collections.abc import Iterator

import pytest
import torch

from sslight.train.machine.prefetch import DeviceBatches
from sslight.views import ViewBatch


def batches(number: int, asked: list[int], *, pinned: bool = False) -> Iterator[ViewBatch]:
    for i in range(number):
        asked.append(i)
        views = torch.full((2, 4, 3, 64, 64), i, dtype=torch.uint8)
        batch = ViewBatch(views, views.clone(), torch.full((4,), i), None)
        yield batch.pin_memory() if pinned else batch


def test_on_a_cpu_nothing_is_asked_for_early() -> None:
    asked: list[int] = []
    on_device = DeviceBatches(batches(2, asked), torch.device("cpu"))
    seen = []
    for batch in on_device:
        seen.append(int(batch.indices[0]))
        on_device.prefetch()
        assert asked == seen
    assert seen == [0, 1]


@pytest.mark.gpu
def test_on_a_gpu_the_next_batch_is_asked_for_early_and_none_is_lost() -> None:
    asked: list[int] = []
    on_device = DeviceBatches(batches(5, asked, pinned=True), torch.device("cuda"))
    sums = []
    for i, batch in enumerate(on_device):
        if i != 2:  # a step that is saved looks no further
            on_device.prefetch()
        assert len(asked) == (i + 1 if i == 2 else min(i + 2, 5))
        assert batch.local_views is not None
        sums.append(batch.global_views.float().mean() + batch.local_views.float().mean())
    assert [float(s) for s in sums] == [2.0 * i for i in range(5)]
