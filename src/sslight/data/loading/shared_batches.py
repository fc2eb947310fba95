"""Batches of arrays that worker processes fill in shared memory."""

import atexit
import ctypes
import mmap
import multiprocessing
import os
import platform
import signal
import sys
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from sslight.config.schema.fields import READ_TIMEOUT
from sslight.data.forking import forking
from sslight.data.sources.bad_images import BadImage
from sslight.data.sources.tar.remote import StoreUnavailable

Pixels = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT_BYTES = 2**27
LARGEST_TASK = 32  # Most images that a worker fills at a time: small enough that all workers end a batch together
HELD_BATCHES = 2  # Batches whose memory stays untouched at the consumer: the last given and the one before


@dataclass(frozen=True)
class RowResult:
    """The index of the image that fills a row, those that could not, and why none can be read at all, if so."""

    index: int | None
    bad: tuple[BadImage, ...] = ()
    failure: str | None = None


class WorkerFailed(RuntimeError):
    """A worker process died or hangs; the text names the image that it was reading."""


FillRow = Callable[[Sequence[Pixels], int, int, int], RowResult]
"""``fill(arrays, row, epoch, index)`` writes image ``index`` into row ``row`` of the arrays of a batch."""


@dataclass(frozen=True)
class SharedBatch:
    """The arrays of one batch, of which the first ``len(rows)`` rows are filled."""

    arrays: tuple[Pixels, ...]
    rows: list[RowResult]

    @property
    def indices(self) -> Indices:
        """The images that fill rows."""
        return np.array([row.index for row in self.rows if row.index is not None], dtype=np.int64)

    @property
    def bad(self) -> list[BadImage]:
        return [image for row in self.rows for image in row.bad]

    def square_images(self) -> torch.Tensor:
        """The filled rows of the first array ``[B, S, S, 3]``, channels first."""
        pixels = self.arrays[0][: len(self.rows)]
        readable = [row.index is not None for row in self.rows]
        return torch.from_numpy(pixels if all(readable) else pixels[readable]).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class _RowsToFill:
    """What a worker does at a time: some consecutive rows of one batch."""

    buffer: int
    first_row: int
    epoch: int
    indices: Indices


_open_pools: "weakref.WeakSet[SharedBatchPool]" = weakref.WeakSet()


@atexit.register
def _close_pools() -> None:
    # The workers ignore SIGTERM, with which multiprocessing would end them at exit: they are ended before.
    for pool in list(_open_pools):
        pool.close()


class SharedBatchPool:
    """A ring of buffers (each the arrays of one batch) in shared memory, and the processes that fill them.

    Shared anonymous memory is taken once and needs no room in ``/dev/shm``; a worker writes pixels where the
    consumer reads them. Workers are forked at the first batch and live until ``close``; signals that ask for an
    end are left to the main process. ``workers=0`` fills the buffers in this process, with the same results.

    ``shapes`` are those of the arrays of a batch; ``locate(index)`` names an image in messages;
    ``timeout`` is how many seconds a worker may spend on one image while the consumer waits.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        fill: FillRow,
        locate: Callable[[int], str],
        *,
        batch_size: int,
        workers: int,
        timeout: float = READ_TIMEOUT,
    ) -> None:
        self._locate = locate
        self._timeout = timeout
        self._task_size = min(LARGEST_TASK, -(-batch_size // max(workers, 1)))
        tasks_per_batch = -(-batch_size // self._task_size)
        # Two batches ahead, as far as whole tasks for each worker allow.
        prefetch = max(2, -(-2 * tasks_per_batch // workers)) if workers else 0
        num_buffers = HELD_BATCHES + 1 + max(prefetch * workers - 1, 0) // tasks_per_batch
        self._buffers = [tuple(_shared_array(shape) for shape in shapes) for _ in range(num_buffers)]
        # Process id, image index and number of the images begun of each worker, to name the image when one dies
        # or hangs; the index is -1 between images.
        self._reading = np.frombuffer(mmap.mmap(-1, 24 * max(workers, 1)), dtype=np.int64).reshape(-1, 3)
        self._hang_detector = _HangDetector(self._reading, timeout)
        self._sampler = _TaskSampler()
        self._dataset = _RowDataset(self._buffers, fill, self._reading)
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._num_given = 0
        self._pinned: list[int] = []
        _open_pools.add(self)
        self._loader = self._build_loader(workers, prefetch) if workers else None
        self._loader_iter: Iterator[list[RowResult]] | None = None

    def batches(self, epoch: int, batches: Iterable[Indices]) -> Iterator[SharedBatch]:
        """Fill one batch after the other; a batch may be shorter than ``batch_size``.

        The arrays of a batch are overwritten when the second batch after it is asked for. Raises
        WorkerFailed naming the images being read if a worker process dies or hangs, StoreUnavailable
        if a store does not answer.
        """
        self._discard_unfinished()
        underway: deque[tuple[int, int]] = deque()
        self._sampler.tasks = self._tasks(epoch, batches, underway)
        rows: list[RowResult] = []
        for part in self._start_epoch():
            for row in part:
                if row.failure is not None:
                    raise StoreUnavailable(row.failure)
            rows += part
            buffer, size = underway[0]
            if len(rows) == size:
                underway.popleft()
                self._num_given += 1
                yield SharedBatch(self._buffers[buffer], rows)
                rows = []

    def pin(self) -> bool:
        """Register the buffers for copies to a GPU beside its work, once; False if they cannot be.

        A copy must have ended when the second batch after it is asked for.
        """
        cuda = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        for array in (array for buffer in self._buffers for array in buffer if array.nbytes):
            if cuda.cudaHostRegister(array.ctypes.data, array.nbytes, 0) != cuda.cudaError.success:
                with suppress(RuntimeError):
                    torch.zeros(1, device="cuda")  # meets the error, which the next kernel would else be blamed for
                return False
            self._pinned.append(array.ctypes.data)
        return True

    def close(self) -> None:
        """End the worker processes. A closed pool cannot be used again."""
        while self._pinned:
            torch.cuda.cudart().cudaHostUnregister(self._pinned.pop())  # type: ignore[no-untyped-call]
        self._loader = self._loader_iter = None  # without references, DataLoader ends its workers
        for process in self._processes:
            process.join(timeout=1)
            if process.is_alive():  # stuck in a read
                with suppress(RuntimeError):  # torch's handler tells of a worker that was killed: we know
                    process.kill()
                with suppress(RuntimeError):
                    process.join(timeout=5)  # one that waits for a dead disk cannot even be killed
        self._processes = []

    def _tasks(
        self, epoch: int, batches: Iterable[Indices], underway: deque[tuple[int, int]]
    ) -> Generator[_RowsToFill, None, None]:
        # Buffers go on from the last batch given, also of an epoch that was left early.
        for number, indices in enumerate(batches, start=self._num_given):
            buffer = number % len(self._buffers)
            underway.append((buffer, len(indices)))
            for start in range(0, len(indices), self._task_size):
                yield _RowsToFill(buffer, start, epoch, indices[start : start + self._task_size])

    def _build_loader(self, workers: int, prefetch: int) -> DataLoader[list[RowResult]]:
        with _expected_warnings():
            return DataLoader(
                self._dataset,
                batch_size=None,
                sampler=self._sampler,
                num_workers=workers,
                prefetch_factor=prefetch,
                persistent_workers=True,
                collate_fn=list,
                worker_init_fn=self._dataset.start_worker,
                multiprocessing_context="fork",
                # A generator of its own: otherwise each epoch draws from torch's global stream.
                generator=torch.Generator(),
                timeout=self._hang_detector.interval,
            )

    def _start_epoch(self) -> Iterator[list[RowResult]]:
        """Start the workers unless they live; gives what they fill."""
        if self._loader is None:
            return map(self._dataset.__getitem__, self._sampler)
        before = set(multiprocessing.active_children())
        previous = signal.getsignal(signal.SIGCHLD)
        with _expected_warnings():
            self._loader_iter = iter(self._loader)
        # torch raises from its own handler wherever the main thread happens to be; a worker that died is found
        # here, when its batch is asked for, with the name of the image.
        if threading.current_thread() is threading.main_thread() and previous is not None:
            signal.signal(signal.SIGCHLD, previous)
        self._processes += [child for child in multiprocessing.active_children() if child not in before]
        return self._results()

    def _results(self) -> Iterator[list[RowResult]]:
        # Not kept in a local variable: an abandoned generator must not keep the workers alive.
        while self._loader_iter is not None:
            try:
                part = next(self._loader_iter)
            except StopIteration:
                return
            except RuntimeError as error:
                dead = {child.pid: child.exitcode for child in self._processes if child.exitcode is not None}
                if dead:
                    raise WorkerFailed(self._death_notice(dead)) from error
                if "timed out" not in str(error):
                    raise
                for index in self._hang_detector.hung():
                    raise WorkerFailed(
                        f"reading {self._locate(index)} has taken more than read_timeout={self._timeout:g} seconds: "
                        "check whether its disk or store responds, remove the file, or raise read_timeout"
                    ) from None
                continue
            self._hang_detector.renew()
            yield part

    def _discard_unfinished(self) -> None:
        """Wait until the workers have ended what is left of an epoch that was abandoned.

        DataLoader would do the same for a new epoch, but give up after one ``timeout``.
        """
        if self._sampler.tasks is not None:
            self._sampler.tasks.close()
        for _ in self._results():
            pass

    def _death_notice(self, dead: dict[int | None, int]) -> str:
        names = ", ".join(self._locate(index) for pid, index, _ in self._reading.tolist() if pid in dead and index >= 0)
        codes = ", ".join(str(code) for code in dead.values())
        return (
            f"{len(dead)} loader process(es) died (exit code {codes}; -9 usually means too little memory) while "
            f"reading {names or 'nothing, between two images'}; try fewer workers, or remove that file"
        )


class _HangDetector:
    """Tells which workers have been at the same image for ``timeout`` seconds of waiting.

    Only time in which the consumer looked every ``interval`` seconds counts, not a clock: a job that was
    suspended, the consumer included, is not taken for one that hangs.
    """

    def __init__(self, reading: npt.NDArray[np.int64], timeout: float) -> None:
        self.interval = min(5.0, timeout / 4)
        self._reading = reading
        self._timeout = timeout
        self._looks = np.zeros(len(reading), dtype=np.int64)
        self._before = reading.copy()

    def hung(self) -> list[int]:
        """To be called after ``interval`` seconds without anything from the workers: indices of images that hang."""
        now = self._reading.copy()
        same = (now == self._before).all(axis=1) & (now[:, 1] >= 0)
        self._looks, self._before = np.where(same, self._looks + 1, 0), now
        hung: list[int] = now[self._looks * self.interval >= self._timeout, 1].tolist()
        return hung

    def renew(self) -> None:
        """To be called when something came."""
        self._looks[:] = 0


class _TaskSampler:
    """The tasks of the running epoch, as the sampler that DataLoader asks for."""

    def __init__(self) -> None:
        self.tasks: Generator[_RowsToFill, None, None] | None = None

    def __iter__(self) -> Iterator[_RowsToFill]:
        assert self.tasks is not None
        return self.tasks


class _RowDataset(Dataset[list[RowResult]]):
    """What DataLoader's workers ask for an item: the rows of a task, filled in shared memory."""

    def __init__(self, buffers: list[tuple[Pixels, ...]], fill: FillRow, reading: npt.NDArray[np.int64]) -> None:
        self._buffers = buffers
        self._fill = fill
        self._reading = reading
        self._worker = 0
        self._begun = 0

    def start_worker(self, worker: int) -> None:
        """Called in each worker process; torch has already set it to one thread."""
        self._worker = worker
        # Ctrl-C and SLURM reach every process of the group; only the main process acts on them, and
        # it needs live workers to end its step.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        keep_memory()

    def __getitem__(self, task: _RowsToFill) -> list[RowResult]:
        filled = []
        for offset, index in enumerate(task.indices.tolist()):
            self._begun += 1
            self._reading[self._worker] = os.getpid(), index, self._begun
            try:
                row = self._fill(self._buffers[task.buffer], task.first_row + offset, task.epoch, index)
            except StoreUnavailable as error:  # as text, which crosses the pipe without a trace of the worker's stack
                row = RowResult(None, failure=str(error))
            filled.append(row)
        self._reading[self._worker, 1] = -1
        return filled


def keep_memory() -> None:
    """Let this process keep up to 128 MB of memory that it frees, with glibc.

    glibc gives blocks above 32 MB back at once, such as a decoded photograph of 12 MP, and up to a fifth of the time
    then goes into taking their pages anew.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        # The second alone would make it worse, where glibc refuses the first.
        _ = mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


@contextmanager
def _expected_warnings() -> Iterator[None]:
    with forking():
        # More workers than cores is the user's own choice, and right where reading is slow.
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        yield


def _shared_array(shape: tuple[int, ...]) -> Pixels:
    """Zeros in memory that forked processes share, all pages taken already (on Linux)."""
    size = int(np.prod(shape))
    if size == 0:
        return np.zeros(shape, dtype=np.uint8)
    if sys.platform == "linux":
        memory = mmap.mmap(-1, size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    else:
        memory = mmap.mmap(-1, size)
    return np.frombuffer(memory, dtype=np.uint8).reshape(shape)
