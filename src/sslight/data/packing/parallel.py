"""One function over many tasks in several processes."""

import mmap
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

import torch

from sslight.data.forking import forking

Task = TypeVar("Task")
Result = TypeVar("Result")

_work: Callable[[Any], Any] | None = None  # In a worker process: what it does

_stopping: mmap.mmap | None = None
"""In a worker process: a byte that all of them share and that is not 0 once nobody waits for results."""


def map_in_order(
    function: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int
) -> Generator[Result, None, None]:
    """``function(task)`` for each task, in their order, in ``workers`` forked processes (0: in this one).

    At most two tasks a worker are underway or done ahead of the consumer, so memory is bounded. Workers die with this
    process, however it ends, and when the iterator is closed, after the task that each has begun. Raises what the
    function raises, and ValueError if a worker process dies.
    """
    if workers == 0:
        yield from map(function, tasks)
        return
    stopping = mmap.mmap(-1, 1)
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _start, (function, stopping))
    underway: deque[Future[Any]] = deque()
    try:
        for task in tasks:
            with forking():
                underway.append(pool.submit(_call, task))
            if len(underway) >= 2 * workers:
                yield underway.popleft().result()
        while underway:
            yield underway.popleft().result()
    except BrokenProcessPool as error:
        raise ValueError(
            "a worker process died, probably from too little memory; run the same command with fewer workers"
        ) from error
    finally:
        # Left early, it waits for the task that each worker has begun: one that is ended while it holds the lock of
        # the pool's queue leaves the pool waiting for ever. Those that are queued already become nothing.
        stopping[0] = 1
        pool.shutdown(cancel_futures=True)


def _start(function: Callable[[Any], Any], stopping: mmap.mmap) -> None:
    global _work, _stopping
    _work, _stopping = function, stopping
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _call(task: Any) -> Any:
    assert _work is not None
    assert _stopping is not None
    return None if _stopping[0] else _work(task)
