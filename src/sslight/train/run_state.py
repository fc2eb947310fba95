"""The state of a run: everything that a checkpoint holds."""

import random
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from sslight.data import DataFingerprint
from sslight.train.finite import NotFinite
from sslight.train.machine.clock import StepClock
from sslight.train.machine.distributed import gathered
from sslight.train.machine.memory import memory_in_words
from sslight.train.processes import agree_on_buffers, data_difference
from sslight.train.record.checkpoints import load_newest
from sslight.train.record.run_folder import RunFolder
from sslight.train.record.run_log import RunLog
from sslight.train.task import Loader, RunOptions, Task, TrainingStopped


class RunState:
    """Module, optimizer, loss scale, loader, random streams and records.

    Attributes:
        step: Steps done.
        metrics: The latest record.
        measurements: Accuracies of every measured epoch, with ``step``.
        skipped_steps: Steps whose batches are skipped, since they gave something that was not finite.
    """

    def __init__(self, task: Task, fabric: Fabric, loader: Loader, options: RunOptions, run: RunFolder) -> None:
        self._task, self._fabric, self._loader, self._options, self._run = task, fabric, loader, options, run
        self.step = 0
        self.metrics: dict[str, float] = {}
        self.measurements: list[dict[str, float]] = []
        self.skipped_steps: list[int] = []

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain data. All processes must call this."""
        task, watched = self._task, self._task.watched
        own = {
            "random": random_state(),
            "loader": self._loader.state_dict(),
            "watched": None if watched is None else watched.state_dict(),
        }
        return {
            "settings": self._options.settings.model_dump(mode="json"),
            "data": {setting: asdict(images) for setting, images in self._options.data.items()},
            "step": self.step,
            "model": task.module.state_dict(),
            "optimizer": task.optimizer.state_dict(),
            "precision": self._fabric.strategy.precision.state_dict(),
            "processes": gathered(own),
            "measurements": self.measurements,
            "metrics": self.metrics,
            "skipped_steps": self.skipped_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore everything; with another number of processes, each draws new random numbers.

        Raises:
            KeyError, RuntimeError, ValueError: it is the state of another run.
        """
        self._task.module.load_state_dict(state["model"])
        self._task.optimizer.load_state_dict(state["optimizer"])
        self._fabric.strategy.precision.load_state_dict(state["precision"])
        self.step, self.metrics, self.measurements = state["step"], state["metrics"], state["measurements"]
        self.skipped_steps = list(state["skipped_steps"])
        processes = state["processes"]
        same_number = len(processes) == self._fabric.world_size
        own = processes[self._fabric.global_rank if same_number else 0]
        if self._task.watched is not None and "watched" in own:  # not in checkpoints of earlier versions
            self._task.watched.load_state_dict(own["watched"])
        if same_number:
            restore_random_state(own["random"])
            self._loader.load_state_dict(own["loader"])
        else:
            torch.manual_seed(self._options.settings.seed + self.step + self._fabric.global_rank)
            if self._fabric.is_global_zero:  # what the others had found is listed again when they find it
                self._loader.load_state_dict(own["loader"])

    def restore(self) -> list[str]:
        """Go back to the newest intact checkpoint of the run, with a sentence on each damaged one.

        Raises ValueError if none is intact, it belongs to another run or to other images, or processes see different
        ones.
        """
        checkpoint = load_newest(self._run.checkpoints)
        self._check_images(checkpoint.state.get("data", {}))
        try:
            self.load_state_dict(checkpoint.state)
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{checkpoint.path} does not belong to this run ({str(error).splitlines()[0]}): start a new run."
            ) from None
        found = gathered((checkpoint.path.name, self.step))
        if len(set(found)) > 1:
            raise ValueError(
                f"the processes read different checkpoints in {self._run.checkpoints} ({found}): output must be a "
                "folder that all of them share."
            )
        if self._fabric.is_global_zero:
            checkpoint.set_damaged_aside()
        return list(checkpoint.damaged.values())

    def _check_images(self, before: dict[str, dict[str, Any]]) -> None:
        """Compare the images of a checkpoint (earlier versions have none) with those of this run."""
        now = self._options.data
        for setting in sorted({*before, *now}) if before else ():
            if setting not in now or setting not in before:
                difference = "was not given" if setting in now else "is left out"
            elif (differs := data_difference(now[setting], DataFingerprint(**before[setting]))) is not None:
                difference = f"has {differs}"
            else:
                continue
            raise ValueError(
                f"the run in {self._run.path} continues with the images it began with, and {setting} {difference}: "
                "give the same ones, wherever they lie now, or start a new run."
            )

    def go_back(self, trouble: NotFinite, log: RunLog) -> None:
        """Return to the last checkpoint; from there, the batch of ``trouble`` will be skipped.

        Raises TrainingStopped if there is none, or too many batches were skipped.
        """
        self._fabric.barrier()  # the first process may have been writing
        run, newest = self._run, self._run.newest_checkpoint
        where = f"{trouble.what} at step {trouble.step + 1}"
        skipped = [*self.skipped_steps, trouble.step]
        skipping = newest is not None and len(skipped) <= self._options.max_skipped_batches
        if self._fabric.is_global_zero:
            action = "skipped" if skipping else "stopped"
            note = {"step": trouble.step + 1, "what": trouble.what, "action": action, "indices": trouble.indices}
            log.attempt(lambda: run.append(run.nonfinite, note))
        if not skipping:
            again = f", after {len(skipped) - 1} batch(es) had been skipped" if len(skipped) > 1 else ""
            remedy = self._task.remedy(newest)
            raise TrainingStopped(f"{where}{again} (its images are listed in {run.nonfinite}): {remedy}")
        sentences = self.restore()
        self.skipped_steps = skipped
        log.begin(self.step)
        for sentence in sentences:
            log.say(sentence)
        log.say(
            f"{where}: back to the checkpoint of step {self.step}, from where this batch is skipped; its images are "
            f"listed in {run.nonfinite}"
        )

    def measure(self, log: RunLog, *, epoch: int, final: bool) -> dict[str, float]:
        """Measure and record accuracies after the steps done; ``final`` asks for the slower ones too."""
        assert self._task.measure is not None
        agree_on_buffers(self._task.module, self._fabric)
        found = self._task.measure(final)
        self.measurements.append({"step": float(self.step), **found})
        log.record(self.step, epoch, found)
        return found

    def is_best(self) -> bool:
        """Whether the accuracy was measured now and is the best so far."""
        trained = [measured for measured in self.measurements if measured["step"] and "knn_top1" in measured]
        if not trained or trained[-1]["step"] != self.step:
            return False
        return all(measured["knn_top1"] < trained[-1]["knn_top1"] for measured in trained[:-1])

    def memory_in_words(self, clock: StepClock) -> AbstractContextManager[None]:
        """Around the steps: says what to do if memory runs out, and what is saved."""

        def remedy() -> str:
            newest = self._run.newest_checkpoint
            kept = "" if newest is None else f"; {newest} holds the run so far, and resume=true goes on from it"
            return f"try, in this order, {self._options.lighter}{kept}."

        return memory_in_words(self._fabric.device, lambda: f"step {self.step + 1} ({clock.doing})", remedy)


def seed_all(seed: int) -> None:
    """Seed the global random generators; views, crops and orders have their own keyed streams."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - it is the global one


def random_state() -> dict[str, Any]:
    """States of all global random generators of this process."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Restore what :func:`random_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
