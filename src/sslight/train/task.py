"""What the loop trains: a module, the loss of a batch, an optimizer and its rates."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from sslight.config import DetectSettings, EvaluateSettings, FinetuneSettings, PretrainSettings
from sslight.data import DataFingerprint

RunSettings = PretrainSettings | DetectSettings | EvaluateSettings | FinetuneSettings
"""The settings of a run that trains."""


@dataclass(frozen=True)
class Verdict:
    """How a run is doing: its state, the finding (empty if nothing is wrong), and what to try."""

    state: Literal["early", "healthy", "watch", "collapsed", "starved"]
    finding: str = ""
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.finding}. Try: {self.advice}." if self.finding else self.state


EARLY = Verdict("early")


@dataclass(frozen=True)
class Output:
    """What one part of a batch gives.

    ``loss``: scalar to minimize; ``scalars``: detached figures to show, ``loss`` among them unless ``figures`` of the
    task adds it.
    """

    loss: Tensor
    scalars: dict[str, Tensor]


class Stateful(Protocol):
    """Something whose state belongs in a checkpoint."""

    def state_dict(self) -> Any:
        """What a resumed run needs."""

    def load_state_dict(self, state: Any) -> None:
        """Continue from there."""


class Loader(Stateful, Protocol):
    """Gives the batches of an epoch to this process; ``indices`` of a batch are its images' positions in the set."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Any]:
        """The batches of ``epoch`` from ``start_step`` on, one for each accumulated part of a step."""


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Callback:
    """Functions that a run calls in its first process; what they return is looked at only if it is True.

    Attributes:
        on_log: ``on_log(step, figures)`` for every line of ``metrics.jsonl``; the figures have ``epoch`` and the word
            ``health`` among them. True ends the run after one more step (several processes: at most ten) as if it were
            the last: it is measured, saved and exported, and ``resume=true`` would go on from there.
        on_epoch_end: ``on_epoch_end(epoch, figures)`` with the latest figures, accuracies among them; epochs count
            from 0. True ends the run likewise.
        on_end: ``on_end(result)`` once the run has its result; not after an error or an interruption.
    """

    on_log: Callable[[int, Mapping[str, float | str]], object] = _nothing
    on_epoch_end: Callable[[int, Mapping[str, float]], object] = _nothing
    on_end: Callable[[Any], object] = _nothing


@dataclass(frozen=True)
class Task:
    """What is trained, as the loop sees it. Steps count from 0.

    Attributes:
        module: All that learns; its ``state_dict()`` is saved. DDP wraps it.
        optimizer: Of the module's parameters.
        loss: ``loss(wrapped, batch, step)``: one part of a step, computed through the wrapped module.
        set_rates: Sets the optimizer's rates for a step, and returns the scheduled values to record.
        total_steps: Length of the run.
        batch_size: Images in a step, over all processes and parts.
        accumulate: Parts of a step, each with a backward pass.
        begin_step, end_step: Before the first forward pass, and after the optimizer.
        finish_gradients: When a step's gradients are complete: clipping, frozen parameters.
        may_diverge: Parts of the module are compared with each other, so that one may become non-finite.
        indicators: Figures of the latest steps, at log steps: scalars on the device.
        figures: More figures of a record, from those that are there.
        judge: The verdict after so many steps, with the latest record or the latest accuracies.
        watched: State of ``judge`` and ``indicators`` in this process, saved with the run.
        measure: Accuracies by name at epoch ends; the flag asks for the slower ones (at the start and the end).
        measure_every: Epochs from one measurement to the next.
        epoch_lines: What to say at an epoch's end, of the latest record, the verdict and the share of waiting.
        remedy: What to do about a loss that is not finite, from the newest checkpoint (or None).
    """

    module: nn.Module
    optimizer: Optimizer
    loss: Callable[[nn.Module, Any, int], Output]
    set_rates: Callable[[int], dict[str, float]]
    total_steps: int
    batch_size: int
    accumulate: int = 1
    begin_step: Callable[[int], None] = _nothing
    end_step: Callable[[int], None] = _nothing
    finish_gradients: Callable[[int], None] = _nothing
    may_diverge: bool = False
    indicators: Callable[[], dict[str, Tensor]] = dict
    figures: Callable[[dict[str, float]], dict[str, float]] = field(default=lambda metrics: {})
    judge: Callable[[int, dict[str, float]], Verdict] | None = None
    watched: Stateful | None = None
    measure: Callable[[bool], dict[str, float]] | None = None
    measure_every: int = 1
    epoch_lines: Callable[[dict[str, float], Verdict, float], list[str]] = field(default=lambda metrics, v, share: [])
    remedy: Callable[[Path | None], str] = field(default=lambda newest: "start a new run with a lower rate.")


@dataclass(frozen=True)
class RunOptions:
    """When a run logs and saves, and what it tolerates.

    Attributes:
        settings: Of the command, kept in every checkpoint; also seed, precision, resume, log_every and logger.
        at_epoch_ends, every_steps, every_minutes: When checkpoints are written, besides the end.
        every_epochs: Epochs from one kept checkpoint to the next.
        keep_last: Newest checkpoints that are kept.
        keep_best: Keep that of the highest kNN accuracy.
        max_skipped_batches: Batches with a non-finite loss or gradient that are skipped before the run ends.
        flops_per_image: Arithmetic of a step for each of its images, to say how much of a GPU's it is.
        traced_steps: Steps whose operations are written to the run folder's trace.json.
        lean: Give large blocks of memory back at once, which takes time on a CPU.
        placement: The first line of the run: where it computes, and on what.
        beginning: What the network is before the first step, in words.
        data: The images of each setting, which a resumed run must find again.
        lighter: The settings that need less memory, the gentlest first.
        again: What continues it, added to the command that began it.
        callbacks: Called at log steps and epoch ends.
        finish: What the first process has to do after the last step; gives pages for the loggers.
    """

    settings: RunSettings
    at_epoch_ends: bool = False
    every_steps: int | None = None
    every_minutes: float | None = None
    every_epochs: int | None = None
    keep_last: int = 2
    keep_best: bool = False
    max_skipped_batches: int = 3
    flops_per_image: float | None = None
    traced_steps: int | None = None
    lean: bool = False
    placement: str = ""
    beginning: str = "untrained"
    data: Mapping[str, DataFingerprint] = field(default_factory=dict)
    lighter: str = "a smaller batch_size, a smaller image_size, fewer workers"
    again: str = "resume=true"
    callbacks: Sequence[Callback] = ()
    finish: Callable[[], list[Path]] = list


class TrainingStopped(RuntimeError):
    """Training ended before its last step; the message says why and how to continue."""
