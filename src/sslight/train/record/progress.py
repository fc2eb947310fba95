"""What is shown on standard error while a command runs."""

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from sslight.train.task import EARLY, Verdict

_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_BETWEEN_CHANGES = 1.0


class Progress:
    """Stages of work: a live bar on a terminal, one changing line in a notebook, a line every 15 seconds in a log file;
    silent if not ``shown``.
    """

    def __init__(self, *, shown: bool) -> None:
        self._in_notebook = shown and Console().is_jupyter
        self._place: Any = None  # the line in the notebook
        no_terminal = False if self._in_notebook else None  # kernels claim to be a color terminal
        self.console = Console(
            stderr=True,
            quiet=not shown,
            soft_wrap=True,
            highlight=False,
            force_jupyter=False,
            force_terminal=no_terminal,
        )
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, visible=False, figures="")
        self._name, self._unit, self._total, self._done = "", "", 0, 0
        self._last_line = time.monotonic()
        self._first_done: tuple[float, int] | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def stage(self, name: str, total: int, *, unit: str = "", done: int = 0) -> None:
        """Begin a stage of ``total`` units, ``done`` of which are finished."""
        self._name, self._unit, self._total, self._done = name, unit, total, done
        self._last_line, self._first_done = time.monotonic(), None
        self._bar.reset(self._task, total=total, completed=done, description=name, visible=True, figures="")

    def advance(self, units: int) -> None:
        """Report more finished units."""
        self.update(self._done + units)

    def update(self, done: int, *, name: str | None = None, figures: str = "") -> None:
        """Report how many units are finished in total; ``figures`` are shown beside the bar."""
        begun, self._done, self._name = self._done, done, name or self._name
        self._bar.update(self._task, completed=done, description=self._name, figures=figures)
        now = time.monotonic()
        if done > begun and self._first_done is None:
            self._first_done = now, done  # the first unit also compiles and starts workers, so it is not typical
        pause = _SECONDS_BETWEEN_CHANGES if self._in_notebook else _SECONDS_BETWEEN_LINES
        if not self.console.is_terminal and now - self._last_line >= pause and done < self._total:
            self._last_line = now
            parts = [self._name, f"{self._unit} {done:,}/{self._total:,}".strip(), figures, self._time_left(now)]
            line = " · ".join(part for part in parts if part)
            if self._in_notebook:
                self._change(line)
            else:
                self.say(line)

    def _change(self, line: str) -> None:
        from IPython.display import display

        content = {"text/plain": line}
        if self._place is None:
            self._place = display(content, raw=True, display_id=True)
        else:
            self._place.update(content, raw=True)

    def _time_left(self, now: float) -> str:
        if self._first_done is None or self._done == self._first_done[1]:
            return ""
        since, first = self._first_done
        return f"{duration((now - since) / (self._done - first) * (self._total - self._done))} left"

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, markup=False)


def duration(seconds: float) -> str:
    """``3:07:42`` or ``7:42``."""
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
    parts.append(accuracies(metrics))
    return " · ".join(part for part in parts if part)


def accuracies(metrics: dict[str, Any]) -> str:
    """The measured accuracies in words."""
    names = {"knn_top1": "kNN", "linear_top1": "linear", "holdout_top1": "held-out", "holdout_map": "held-out mAP"}
    return " · ".join(f"{label} {metrics[name]:.1f} %" for name, label in names.items() if name in metrics)
