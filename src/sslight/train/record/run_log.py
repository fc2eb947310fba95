"""What a run records and prints: metrics.jsonl, TensorBoard, the screen, and what could not be written."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from lightning_fabric import Fabric
from torch.utils.tensorboard import SummaryWriter

from sslight.config import flat_settings
from sslight.train.machine.interrupts import failed_threads
from sslight.train.record.loggers import CLIENTS, Logger
from sslight.train.record.progress import Progress, epoch_line, step_figures
from sslight.train.record.run_folder import RunFolder
from sslight.train.task import EARLY, RunOptions, Task


class RunLog:
    """The records and messages of a run; only the first process writes files.

    A failed write is reported once and never ends a run.
    """

    def __init__(self, run: RunFolder, fabric: Fabric, task: Task, options: RunOptions, steps_per_epoch: int) -> None:
        self.verdict = EARLY
        self.num_epochs = -(-task.total_steps // steps_per_epoch)
        self._judge = task.judge
        self._run, self._first, self._total = run, fabric.is_global_zero, task.total_steps
        self.enough = False
        """Whether a callback asked for the end."""
        self._settings, self._callbacks = options.settings, options.callbacks if self._first else ()
        self._loggers: list[Logger] = []
        self._writer: SummaryWriter | None = None
        self._progress = Progress(shown=self._first)
        self._told: set[str] = set()
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(self._progress)
        self._open.enter_context(failed_threads(self.tell))
        if self._first:
            settings = flat_settings(self._settings.model_dump(mode="json"))
            names = [name for name in self._settings.logger if name in CLIENTS]
            self._loggers = [Logger(name, self._run.path, settings, self.say) for name in names]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_writer()
        for logger in self._loggers:
            logger.close(complete=kind is None)
        self._open.close()

    def begin(self, step: int) -> None:
        """Continue the files and the display after ``step`` steps."""
        self._progress.stage("starting", self._total, unit="step", done=step)
        if self._first and step < self._total:
            self._close_writer()
            self.attempt(lambda: self._run.drop_metrics_after(step))
            if "tensorboard" in self._settings.logger:
                self._writer = SummaryWriter(str(self._run.tensorboard), purge_step=step + 1 if step else None)

    def record(self, step: int, epoch: int, figures: dict[str, float]) -> None:
        """Judge the run by a line of figures, report new kinds of trouble, and write both."""
        words: dict[str, str] = {}
        if self._judge is not None:
            self.verdict = verdict = self._judge(step, figures)
            words = {"health": verdict.state}
            if verdict.state in ("watch", "collapsed"):
                self.say_once(f"{verdict.state} {verdict.finding.partition('(')[0]}", f"step {step}: {verdict}")
        if self._first:
            record: dict[str, float | str] = {"epoch": epoch, **figures, **words}
            self.attempt(lambda: self._write(step, figures, record))
            for logger in self._loggers:
                logger.put(lambda client: client.log(step, record))
            self._ask(callback.on_log(step, record) for callback in self._callbacks)

    def end_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Report the end of an epoch, also to the callbacks."""
        self.say(epoch_line(epoch, self.num_epochs, metrics))
        self._ask(callback.on_epoch_end(epoch, metrics) for callback in self._callbacks)

    def _ask(self, answers: Iterable[object]) -> None:
        if any(answer is True for answer in list(answers)):  # a list, so that all are called
            self.enough = True
            self.say_once("enough", "a callback asked for the end of the run")

    def keep(self, pages: list[Path]) -> None:
        """Give finished pages to the loggers."""
        for logger in self._loggers:
            logger.put(lambda client: [client.keep(page) for page in pages])

    def _write(self, step: int, figures: dict[str, float], record: dict[str, float | str]) -> None:
        self._run.append(self._run.metrics, {"step": step, **record})
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, step)

    def show(self, step: int, epoch: int, metrics: dict[str, float]) -> None:
        """Show that ``step`` steps are done, the last one in ``epoch``."""
        figures = step_figures(metrics, self.verdict)
        self._progress.update(step, name=f"epoch {epoch + 1}/{self.num_epochs}", figures=figures)

    def say(self, text: str | None) -> None:
        """Print a line above the bar, if there is something to say."""
        if text:
            self._progress.say(text)

    def say_once(self, kind: str, text: str) -> None:
        """Print a line unless one of its kind was printed."""
        if kind not in self._told:
            self._told.add(kind)
            self.say(text)

    def tell(self, failure: OSError | None) -> None:
        """Report once what could not be written; the run continues, and the next checkpoint is tried when due."""
        if failure is not None:
            name = failure.filename or self._run.tensorboard  # TensorBoard's errors have no file name
            self.say_once(str(name), f"warning: {name} was not written: {failure.strerror}. The run goes on.")

    def attempt(self, write: Callable[[], None]) -> None:
        """Write something that the run does not depend on."""
        try:
            write()
        except OSError as error:
            self.tell(error)

    def _close_writer(self) -> None:
        if self._writer is not None:
            self.attempt(self._writer.close)
            self._writer = None
