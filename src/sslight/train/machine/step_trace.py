"""What the host and the device do in some steps, as a trace for chrome://tracing or Perfetto."""

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity

_STEPS_BEFORE = 10  # which compile, choose kernels and start workers


def check_traced(steps: int | None, total_steps: int) -> None:
    """Refuse a trace that would begin after the end of the run. Raises ValueError."""
    if steps is not None and total_steps < _STEPS_BEFORE + steps:
        raise ValueError(
            f"profile={steps} would have no effect: tracing begins after {_STEPS_BEFORE} steps, and the run has "
            f"{total_steps:,}: train {_STEPS_BEFORE + steps} steps or more."
        )


class StepTrace:
    """Writes the operations of ``steps`` steps to ``path``, after ten steps; None for no trace."""

    def __init__(self, path: Path, steps: int | None) -> None:
        self._path, self._steps = path, steps
        self._done = 0
        self._profiler: torch.profiler.profile | None = None

    def end_step(self) -> None:
        """Call after each step."""
        if self._steps is None:
            return
        self._done += 1
        if self._done == _STEPS_BEFORE:
            on_gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self._profiler = torch.profiler.profile(activities=[ProfilerActivity.CPU, *on_gpu])
            self._profiler.start()
        elif self._done == _STEPS_BEFORE + self._steps:
            self.close()

    def close(self) -> None:
        """Write what was traced, even if fewer steps were."""
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler.export_chrome_trace(str(self._path))
            self._profiler = None
