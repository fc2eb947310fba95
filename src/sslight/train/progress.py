"""What a person sees on standard error while a run trains."""

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sslight.pretraining.health import EARLY, Verdict

_SECONDS_BETWEEN_LINES = 15.0


class TrainingProgress:
    """A live bar on a terminal, a line every 15 seconds in a log file, silence on all but the first process."""

    def __init__(self, *, total_steps: int, first_step: int, num_epochs: int, shown: bool) -> None:
        self.console = Console(stderr=True, quiet=not shown, soft_wrap=True, highlight=False)
        self._num_epochs = num_epochs
        self._total_steps = total_steps
        self._first_step = first_step
        self._last_line = time.monotonic()
        self._first_done: tuple[float, int] | None = None
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=total_steps, completed=first_step, figures="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, *, step: int, epoch: int, figures: str) -> None:
        """Show that ``step`` steps are done, the last in ``epoch`` (from 0), with the latest figures."""
        description = f"epoch {epoch + 1}/{self._num_epochs}"
        self._bar.update(self._task, completed=step, description=description, figures=figures)
        now = time.monotonic()
        if step > self._first_step and self._first_done is None:
            self._first_done = now, step  # the first step also compiles and starts workers: it says nothing of the rest
        if not self.console.is_terminal and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            parts = [description, f"step {step}/{self._total_steps}", figures, self._time_left(now, step)]
            self.say(" · ".join(part for part in parts if part))

    def _time_left(self, now: float, step: int) -> str:
        if self._first_done is None or step == self._first_done[1]:
            return ""
        since, first = self._first_done
        return f"{duration((now - since) / (step - first) * (self._total_steps - step))} left"

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, markup=False)


def duration(seconds: float) -> str:
    """``3:07:42``, ``7:42``: hours only where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def step_figures(metrics: dict[str, float], verdict: Verdict = EARLY) -> str:
    """The figures beside the progress bar."""
    if "loss" not in metrics:
        return ""
    state = "" if verdict.state == "early" else f" · {verdict.state}"
    return (
        f"loss {metrics['loss']:.3f} · {metrics['images_per_second']:.0f} images/s · "
        f"waiting for data {metrics['data_wait_share']:.0%}{state}"
    )


def epoch_line(epoch: int, num_epochs: int, metrics: dict[str, float]) -> str:
    """One line for a finished epoch."""
    parts = [f"epoch {epoch + 1}/{num_epochs}", step_figures(metrics)]
    if "probe_top1" in metrics:
        parts.append(f"online linear {metrics['probe_top1']:.1f} % (training views)")
    if "knn_top1" in metrics:
        parts.append(accuracies(metrics))
    return " · ".join(part for part in parts if part)


def accuracies(metrics: dict[str, Any]) -> str:
    """The measured accuracies in words."""
    names = {"knn_top1": "kNN", "linear_top1": "linear"}
    return " · ".join(f"{label} {metrics[name]:.1f} %" for name, label in names.items() if name in metrics)
