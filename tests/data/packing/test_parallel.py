import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sslight.data.packing.parallel import map_in_order


def double(task: int) -> int:
    time.sleep(0.001 * (task % 3))
    return 2 * task


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_tasks(workers: int) -> None:
    assert list(map_in_order(double, range(50), workers=workers)) == list(range(0, 100, 2))


def test_no_more_than_two_tasks_a_worker_are_taken_ahead() -> None:
    taken = 0

    def tasks() -> Iterator[int]:
        nonlocal taken
        for task in range(50):
            taken += 1
            yield task

    results = map_in_order(double, tasks(), workers=2)
    for number in range(20):
        next(results)
        assert taken <= number + 4
    results.close()


def fail(task: int) -> int:
    if task == 3:
        raise OSError(28, "no room", "there")
    return task


def test_an_error_comes_through_whole() -> None:
    with pytest.raises(OSError, match="no room") as error:
        list(map_in_order(fail, range(9), workers=2))
    assert (error.value.errno, error.value.filename) == (28, "there")


def test_a_worker_that_dies_ends_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="a worker process died, probably from too little memory"):
        list(map_in_order(lambda task: os.kill(os.getpid(), signal.SIGKILL), range(3), workers=2))


def test_workers_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    def note(task: int) -> None:
        (tmp_path / str(os.getpid())).touch()
        time.sleep(60)

    parent = os.fork()
    if parent == 0:
        try:
            list(map_in_order(note, range(2), workers=2))
        finally:
            os._exit(1)
    deadline = time.monotonic() + 30
    while len(workers := [int(path.name) for path in tmp_path.iterdir()]) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(workers) == 2
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    while any(is_alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(is_alive(worker) for worker in workers)


def is_alive(process: int) -> bool:
    try:
        # An orphan that nobody waits for stays as a zombie where process 1 is no init.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
