"""Batches on the device, copied there while it works on the one before."""

from collections.abc import Iterator
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor


class Batch(Protocol):
    """A batch that can be moved to a device."""

    def to(self, device: torch.device, non_blocking: bool = True) -> Self:
        """The same batch on a device."""

    def tensors(self) -> list[Tensor]:
        """All its tensors."""


_B = TypeVar("_B", bound=Batch)


class DeviceBatches(Generic[_B]):
    """The batches of an epoch on a device.

    On a GPU :meth:`prefetch`, called when a step's work is queued, asks for the next batch and starts its copy on a
    stream of its own. On a CPU there is nothing to copy, and the loader's memory for a batch is only good until
    the second batch after it is asked for, so nothing is asked for early.
    """

    def __init__(self, batches: Iterator[_B], device: torch.device) -> None:
        self._batches = batches
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._next: _B | None = None
        self._copied_last: torch.cuda.Event | None = None

    def prefetch(self) -> None:
        """Start on the next batch, if there is one; the host waits for the loader, not for the device."""
        if self._stream is not None and self._next is None:
            self._next = self._copied(self._asked())

    def __iter__(self) -> Iterator[_B]:
        return self

    def __next__(self) -> _B:
        batch = self._next
        self._next = None
        if batch is None:
            batch = self._copied(self._asked())
            if batch is None:
                raise StopIteration
        if self._stream is not None:
            working = torch.cuda.current_stream(self._device)
            working.wait_stream(self._stream)
            for tensor in batch.tensors():
                tensor.record_stream(working)  # its memory stays until the work on it is done
        return batch

    def _asked(self) -> _B | None:
        if self._copied_last is not None:
            self._copied_last.synchronize()  # the loader may write over a batch soon; its copy has long ended
        return next(self._batches, None)

    def _copied(self, batch: _B | None) -> _B | None:
        if batch is None or self._stream is None:
            return batch
        with torch.cuda.stream(self._stream):
            on_device = batch.to(self._device, non_blocking=True)
            self._copied_last = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied_last.record()
        return on_device
