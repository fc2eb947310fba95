"""Shards of a store copied to this machine's disk before their images are wanted."""

import mmap
import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import numpy as np
import numpy.typing as npt

from sslight.data.forking import forking
from sslight.data.loading.shared_batches import Indices
from sslight.data.sources.blocks import copy_shard, shard_ends
from sslight.data.sources.source import Source
from sslight.data.sources.tar.remote import StoreUnavailable

_AT_ONCE = 4  # Shards that a process copies at a time


class ShardCopying:
    """A process beside the workers that copies shards to the disk, in the order in which their images are wanted.

    Workers do not wait for it: they read by request until there is a copy. It passes over a shard that has been in use
    for half of the ``num_steps`` by which it is ahead, so that a slow network does not carry everything twice.
    """

    def __init__(self, source: Source, num_steps: int) -> None:
        self._source, self._num_steps = source, num_steps
        self._ends = shard_ends(source)
        self._given = np.frombuffer(mmap.mmap(-1, 8), dtype=np.int64)  # steps, for both processes
        self._process: BaseProcess | None = None
        self._requests: Connection | None = None

    def start(self) -> None:
        """Start the process, or another one if it has died."""
        if self._process is not None and self._process.is_alive():
            return
        context = multiprocessing.get_context("fork")
        received, self._requests = context.Pipe(duplex=False)
        words = (self._source, received, self._requests, self._given)
        self._process = context.Process(target=_copy_as_asked, args=words, daemon=True)
        with forking():
            self._process.start()
        received.close()

    def ahead_of(self, steps: Iterator[Indices], following: Iterator[Indices]) -> Iterator[Indices]:
        """The ``steps``, and shards copied before their images are given; at the end those of what is ``following``."""
        asked: set[int] = set()
        ahead: deque[Indices] = deque()
        for step in steps:
            self._ask(step, asked, len(ahead))
            ahead.append(step)
            if len(ahead) > self._num_steps:
                self._given += 1
                yield ahead.popleft()
        asked = set()
        while ahead:
            if (step_after := next(following, None)) is not None:
                self._ask(step_after, asked, self._num_steps)
            self._given += 1
            yield ahead.popleft()

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.join(timeout=5)
            self._process = None

    def _ask(self, step: Indices, asked: set[int], steps_before: int) -> None:
        assert self._requests is not None
        shards, firsts = np.unique(np.searchsorted(self._ends, step, side="right"), return_index=True)
        latest = int(self._given[0]) + steps_before + self._num_steps // 2
        for shard, first in zip(shards.tolist(), firsts.tolist(), strict=True):
            if shard not in asked:
                asked.add(shard)
                with suppress(OSError):  # it has died, and images are read by request
                    self._requests.send((int(step[first]), latest))


def _copy_as_asked(source: Source, received: Connection, sent: Connection, given: npt.NDArray[np.int64]) -> None:
    sent.close()  # or it would never see the end of what is asked
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    said: set[str] = set()

    def copy(image: int, latest: int) -> None:
        if given[0] > latest:
            return
        try:
            copy_shard(source, image)
        except (OSError, ValueError, StoreUnavailable) as error:
            if type(error).__name__ not in said:  # once, not for every shard
                said.add(type(error).__name__)
                print(f"warning: a shard is not copied, its images are read one by one: {error}", file=sys.stderr)

    threads = ThreadPoolExecutor(_AT_ONCE)
    with suppress(EOFError):
        while True:
            threads.submit(copy, *received.recv())
    threads.shutdown(cancel_futures=True)
