"""The state of a run: everything that a checkpoint holds, named once."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from sslight.train.checkpoints import load_newest
from sslight.train.run_folder import RunFolder
from sslight.train.task import Loader, RunOptions, Task


class RunState:
    """Module, optimiser, loss scale, loader, random streams, and what was seen so far.

    Attributes:
        step: Steps done.
        metrics: The latest record.
        measurements: Accuracies of every measured epoch, with ``step``.
        skipped_steps: Steps whose batches are skipped, since they gave something that was not finite.
    """

    def __init__(self, task: Task, fabric: Fabric, loader: Loader, options: RunOptions) -> None:
        self._task, self._fabric, self._loader, self._options = task, fabric, loader, options
        self.step = 0
        self.metrics: dict[str, float] = {}
        self.measurements: list[dict[str, float]] = []
        self.skipped_steps: list[int] = []

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain data. All processes must call this."""
        return {
            "settings": self._options.settings.model_dump(mode="json"),
            "step": self.step,
            "model": self._task.module.state_dict(),
            "optimizer": self._task.optimizer.state_dict(),
            "precision": self._fabric.strategy.precision.state_dict(),
            "processes": self._gathered({"random": random_state(), "loader": self._loader.state_dict()}),
            "measurements": self.measurements,
            "metrics": self.metrics,
            "skipped_steps": self.skipped_steps,
            "watched": None if self._task.watched is None else self._task.watched.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put everything back; with another number of processes, each draws anew.

        Raises:
            KeyError, RuntimeError, ValueError: it is the state of another run.
        """
        self._task.module.load_state_dict(state["model"])
        self._task.optimizer.load_state_dict(state["optimizer"])
        self._fabric.strategy.precision.load_state_dict(state["precision"])
        self.step, self.metrics, self.measurements = state["step"], state["metrics"], state["measurements"]
        self.skipped_steps = list(state["skipped_steps"])
        if self._task.watched is not None:
            self._task.watched.load_state_dict(state["watched"])
        processes = state["processes"]
        if len(processes) == self._fabric.world_size:
            restore_random_state(processes[self._fabric.global_rank]["random"])
            self._loader.load_state_dict(processes[self._fabric.global_rank]["loader"])
        else:
            torch.manual_seed(self._options.seed + self.step + self._fabric.global_rank)
            if self._fabric.is_global_zero:  # what the others had met is listed once more when they meet it
                self._loader.load_state_dict(processes[0]["loader"])

    def restore(self, run: RunFolder) -> list[str]:
        """Go back to the newest intact checkpoint of ``run``; a sentence on each that is not intact.

        Raises:
            ValueError: no checkpoint is intact, it is of another run, or processes see different ones.
        """
        checkpoint = load_newest(run.checkpoints)
        try:
            self.load_state_dict(checkpoint.state)
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{checkpoint.path} does not belong to this run ({str(error).splitlines()[0]}): start a new run."
            ) from None
        found = self._gathered((checkpoint.path.name, self.step))
        if len(set(found)) > 1:
            raise ValueError(
                f"the processes read different checkpoints in {run.checkpoints} ({found}): output must be a folder "
                "that all of them share."
            )
        if self._fabric.is_global_zero:
            checkpoint.set_damaged_aside()
        return checkpoint.passed_over

    def _gathered(self, own: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self._fabric.world_size == 1:
            return [own]
        gathered: list[Any] = [None] * self._fabric.world_size
        dist.all_gather_object(gathered, own)
        return gathered


def seed_all(seed: int) -> None:
    """Seed the global random generators; views, crops and orders have keyed streams of their own."""
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
    """Put back what :func:`random_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def is_best(measurements: Sequence[dict[str, float]], step: int) -> bool:
    """Whether the accuracy after ``step`` steps was measured and is above all before it in training."""
    trained = [measured for measured in measurements if measured["step"] and "knn_top1" in measured]
    if not trained or trained[-1]["step"] != step:
        return False
    return all(measured["knn_top1"] < trained[-1]["knn_top1"] for measured in trained[:-1])
