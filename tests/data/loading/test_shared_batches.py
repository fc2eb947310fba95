import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from sslight.data.loading.shared_batches import FillRow, Indices, Pixels, RowResult, SharedBatchPool


def write_index(arrays: Sequence[Pixels], row: int, epoch: int, index: int) -> RowResult:
    arrays[0][row] = index
    arrays[1][:, row] = epoch
    return RowResult(index)


def locate(index: int) -> str:
    return f"image {index}"


@pytest.fixture
def make() -> Iterator[Callable[..., SharedBatchPool]]:
    """Builds pools of batches of five and closes them at the end."""
    made = []

    def build(fill: FillRow = write_index, **options: Any) -> SharedBatchPool:
        made.append(SharedBatchPool([(5, 2, 2), (3, 5)], fill, locate, batch_size=5, **options))
        return made[-1]

    yield build
    for pool in made:
        pool.close()


def cut(number: int) -> list[Indices]:
    return [np.arange(start, min(start + 5, number)) for start in range(0, number, 5)]


@pytest.mark.parametrize("workers", [0, 1, 2, 7])
def test_rows_are_filled_in_the_order_of_the_batches(make: Callable[..., SharedBatchPool], workers: int) -> None:
    pool = make(workers=workers)
    for epoch in (1, 2):
        seen = []
        for batch in pool.batches(epoch, cut(38)):
            rows = len(batch.rows)
            seen += batch.arrays[0][:rows, 0, 0].tolist()
            assert seen[-rows:] == [row.index for row in batch.rows]
            assert (batch.arrays[1][:, :rows] == epoch).all()
        assert seen == list(range(38))


@pytest.mark.parametrize("workers", [0, 2])
def test_two_batches_stay_untouched_however_fast_the_workers_are(
    make: Callable[..., SharedBatchPool], workers: int
) -> None:
    held: list[tuple[Pixels, int]] = []
    for batch in make(workers=workers).batches(0, cut(100)):
        time.sleep(0.005)  # lets the workers run as far ahead as they may
        held = [*held[-1:], (batch.arrays[0], batch.rows[0].index or 0)]
        for pixels, first in held:
            assert pixels[:, 0, 0].tolist() == list(range(first, first + 5))


def is_slow_in_epoch_0(arrays: Sequence[Pixels], row: int, epoch: int, index: int) -> RowResult:
    if epoch == 0 and index >= 5:
        time.sleep(0.3)
    return write_index(arrays, row, epoch, index)


def test_slow_images_of_an_abandoned_epoch_are_waited_for(make: Callable[..., SharedBatchPool]) -> None:
    pool = make(is_slow_in_epoch_0, workers=1, timeout=1)  # looked after every 0.25 s
    next(pool.batches(0, cut(15)))
    seen = [row.index for batch in pool.batches(1, cut(15)) for row in batch.rows]
    assert seen == list(range(15))


def hangs_in_epoch_0(arrays: Sequence[Pixels], row: int, epoch: int, index: int) -> RowResult:
    if epoch == 0 and index == 7:
        time.sleep(4)
    return write_index(arrays, row, epoch, index)


def test_an_image_of_an_abandoned_epoch_that_hangs_is_named(make: Callable[..., SharedBatchPool]) -> None:
    pool = make(hangs_in_epoch_0, workers=1, timeout=1)
    next(pool.batches(0, cut(30)))
    with pytest.raises(RuntimeError, match=r"^reading image 7 has taken more than read_timeout=1 seconds"):
        next(pool.batches(1, cut(30)))


def dies_at_image_12(arrays: Sequence[Pixels], row: int, epoch: int, index: int) -> RowResult:
    if index == 12:
        os.kill(os.getpid(), signal.SIGKILL)
    return write_index(arrays, row, epoch, index)


def test_the_death_of_a_worker_names_the_image(make: Callable[..., SharedBatchPool]) -> None:
    pool = make(dies_at_image_12, workers=2)
    with pytest.raises(RuntimeError, match=r"^1 loader process\(es\) died \(exit code -9; .* while reading image 12;"):
        list(pool.batches(0, cut(30)))


def test_a_worker_that_dies_while_the_consumer_computes_is_told_when_its_batch_is_asked_for(
    make: Callable[..., SharedBatchPool],
) -> None:
    pool = make(workers=1)
    batches = pool.batches(0, cut(200))
    next(batches)
    [worker] = multiprocessing.active_children()
    worker.kill()
    time.sleep(0.5)  # the consumer's own work, which no handler of torch's may break off
    with pytest.raises(RuntimeError, match=r"^1 loader process\(es\) died \(exit code -9;"):
        list(batches)


def test_workers_ignore_the_signals_that_the_main_process_handles(make: Callable[..., SharedBatchPool]) -> None:
    pool = make(workers=2)
    batches = pool.batches(0, cut(200))
    next(batches)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
    assert len(list(batches)) == 39
    assert all(worker.is_alive() for worker in workers)


def test_closing_ends_the_workers_also_in_the_middle_of_an_epoch(make: Callable[..., SharedBatchPool]) -> None:
    pool = make(workers=2)
    batches = pool.batches(0, cut(200))
    next(batches)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    pool.close()
    assert not any(worker.is_alive() for worker in workers)
    assert list(batches) == []


FORGETFUL = """
from sslight.data import SyntheticSource, ViewLoader
from sslight.views import MultiCrop
loader = ViewLoader(SyntheticSource(40, size=16), MultiCrop(2, 0, 8), batch_size=4, seed=0, workers=2)
batches = loader.epoch(0)
next(batches)
print("ready", flush=True)
{then}
"""


def start(then: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", FORGETFUL.format(then=then)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in a script's background ignores it
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_program_that_never_closes_its_loader_ends_without_a_word() -> None:
    output, errors = start("").communicate(timeout=30)
    assert (output, errors) == ("", "")


def test_ctrl_c_reaches_the_main_process_only() -> None:
    process = start("import time; time.sleep(60)")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, errors = process.communicate(timeout=30)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1
    assert process.returncode == -signal.SIGINT
