"""Where training time goes: waiting for data, and the parts of a step."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from sslight.train.machine.memory import peak_memory
from sslight.train.machine.utilization import flop_utilization


class DataWait:
    """Seconds in which a device was idle because its next batch was not ready.

    On a CPU this is the time from asking to getting. A GPU still has work queued while the host asks, and is idle only
    if that ends first: two events in its queue, before and after, measure it.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Around asking for a batch."""
        if not self._on_gpu:
            start = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - start
            return
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        before.record()
        yield
        after.record()
        self._events.append((before, after))

    def seconds(self) -> float:
        """The total so far; the host waits for the GPU."""
        for before, after in self._events:
            after.synchronize()
            self._seconds += before.elapsed_time(after) / 1000
        self._events.clear()
        return self._seconds


class Throughput:
    """Images per second and the share of waiting, since the last look and over the whole run, without its pauses.

    Args:
        batch_size: Images in a step, over all processes.
        device: Of the training.
        world_size: Processes, each with a device.
        flops_per_image, precision: Of the training; None where its arithmetic is not known.
    """

    def __init__(
        self,
        batch_size: int,
        device: torch.device,
        world_size: int = 1,
        *,
        flops_per_image: float | None = None,
        precision: str = "32",
    ) -> None:
        self.data_wait = DataWait(device)
        self._device, self._world_size = device, world_size
        self._flops_per_image, self._precision = flops_per_image, precision
        self._batch_size = batch_size
        self._started = self._since = time.perf_counter()
        self._first_step = self._step = 0
        self._waited = self._measuring = 0.0

    def begin(self, step: int) -> None:
        """Start counting at ``step``, from now on."""
        self._first_step = self._step = step
        self._since, self._waited = time.perf_counter(), self.data_wait.seconds()

    def look(self, step: int) -> dict[str, float]:
        """Figures since the last look; the host waits for the GPU."""
        now, waited = time.perf_counter(), self.data_wait.seconds()
        seconds = max(now - self._since, 1e-9)
        figures = {
            "images_per_second": (step - self._step) * self._batch_size / seconds,
            "data_wait_share": (waited - self._waited) / seconds,
        }
        if self._device.type == "cuda":
            figures["images_per_second_per_gpu"] = figures["images_per_second"] / self._world_size
            figures["peak_memory_mib"] = peak_memory(self._device)["device"]
            flops = figures["images_per_second_per_gpu"] * (self._flops_per_image or 0.0)
            used = flop_utilization(flops, torch.cuda.get_device_name(self._device), self._precision)
            figures |= {"flop_utilization": used} if used else {}
        self._since, self._step, self._waited = now, step, waited
        return figures

    @contextmanager
    def paused(self, *, measuring: bool = False) -> Iterator[None]:
        """Around work that is not training; ``measuring`` still counts for the whole run."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self._since += seconds
        self._measuring += seconds if measuring else 0.0

    def waiting_share(self) -> float:
        """Of the run so far."""
        return self._waited / self._busy()

    def whole(self, step: int) -> tuple[float, float, float]:
        """For the run that ended after ``step`` steps: seconds with all pauses, images per second, share of waiting."""
        images = (step - self._first_step) * self._batch_size
        return time.perf_counter() - self._started, images / self._busy(), self.waiting_share()

    def _busy(self) -> float:
        return max(time.perf_counter() - self._started - self._measuring, 1e-9)


class StepClock:
    """Seconds of the parts of each step; a part inside another is not counted in the outer one.

    A clock that does not run costs nothing. A running one waits for the device where a part begins or ends, so the
    parts of a step on a GPU no longer overlap.
    """

    def __init__(self, *, runs: bool = False) -> None:
        self._runs = runs
        self._open: list[str] = []
        self._since = 0.0
        self._parts: dict[str, float] = defaultdict(float)
        self._step_began = 0.0
        self.steps: list[dict[str, float]] = []
        """For each step, seconds by part, and of the ``whole``."""
        self.doing = "start"
        """The part that was begun last."""

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the seconds inside towards ``name``."""
        self.doing = name
        if not self._runs:
            yield
            return
        self._begin(name)
        try:
            yield
        finally:
            self._end()

    def watch(self, module: nn.Module, name: str) -> None:
        """Count a module's forward passes towards ``name``."""
        module.register_forward_pre_hook(lambda *_: self._begin(name))
        module.register_forward_hook(lambda *_: self._end())

    def begin_step(self) -> None:
        """A step begins."""
        if self._runs:
            self._parts.clear()
            self._step_began = self._now()

    def end_step(self) -> None:
        """It ends."""
        if self._runs:
            self.steps.append({**self._parts, "whole": self._now() - self._step_began})

    def _begin(self, name: str) -> None:
        now = self._now()
        if self._open:
            self._parts[self._open[-1]] += now - self._since
        self._open.append(name)
        self._since = now

    def _end(self) -> None:
        now = self._now()
        self._parts[self._open.pop()] += now - self._since
        self._since = now

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()
