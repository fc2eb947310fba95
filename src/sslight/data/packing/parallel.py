"""One function over many tasks in several processes."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

import torch

Task = TypeVar("Task")
Result = TypeVar("Result")

_work: Callable[[Any], Any] | None = None
"""In a worker process: what it does."""


def map_in_order(
    function: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int
) -> Generator[Result, None, None]:
    """``function(task)`` for each task, in their order, in ``workers`` forked processes (0: in this one).

    At most two tasks a worker are underway or done ahead of the consumer, so memory is bounded.
    Workers die with this process, however it ends, and when the iterator is closed. Raises what
    the function raises, and ValueError if a worker process dies.
    """
    if workers == 0:
        yield from map(function, tasks)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _start, (function,))
    underway: deque[Future[Any]] = deque()
    try:
        for task in tasks:
            with warnings.catch_warnings():
                # Python 3.12 warns of any fork beside threads; workers use none of the locks that torch's could hold.
                warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
                underway.append(pool.submit(_call, task))
            if len(underway) >= 2 * workers:
                yield underway.popleft().result()
        while underway:
            yield underway.popleft().result()
    except BrokenProcessPool as error:
        raise ValueError(
            "a worker process died, mostly of too little memory; give the same command with fewer workers"
        ) from error
    finally:
        # Left early, it waits for the few tasks that have begun: a worker that is ended while it holds the lock of
        # the pool's queue leaves the pool waiting for ever.
        pool.shutdown(cancel_futures=True)


def _start(function: Callable[[Any], Any]) -> None:
    global _work
    _work = function
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
    return _work(task)
