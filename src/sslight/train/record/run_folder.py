"""The run folder: what a run writes, and the rules that protect an earlier run."""

import errno
import fcntl
import json
import math
import os
import platform
import sys
import weakref
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sslight.config import PretrainSettings, flat_settings, read_settings, to_yaml
from sslight.data import available_cores
from sslight.files import remove_partial_files, write_whole
from sslight.train.record.checkpoints import LAST, kept_checkpoints
from sslight.train.record.loggers import check_loggers
from sslight.train.task import RunSettings

_LOCK = ".lock"
# fmt: off
_PACKAGES = (
    "sslight", "torch", "torchvision", "timm", "faster-coco-eval", "lightning-fabric", "numpy", "numba", "pillow",
    "h5py",
)
_FREE_TO_CHANGE = (  # settings that name images are here, too: the images themselves are compared
    "output", "init_from", "resume", "devices", "workers", "compile", "grad_checkpointing", "profile", "logger",
    "log_every", "checkpoint.", "optim.max_skipped_batches", "data.max_bad_share", "max_bad_share",
    "data.read_timeout", "data.cache_gb", "read_timeout", "cache", "feature_batch_size", "sample", "val_split",
    "test_size", "data.train", "data.val", "data.labels", "data.subset", "data.tar_image", "probe.train",
)
# fmt: on


class RunFolder:
    """Paths and files of one run.

    ``config.yaml`` (resolved settings, re-runnable), ``environment.json``, ``metrics.jsonl``,
    ``bad_images.csv``, ``backbone.safetensors``, ``checkpoints/`` and TensorBoard events; where a loss or a
    gradient was not finite, ``nonfinite.jsonl``; and ``.lock``, which is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.jsonl"
        self.bad_images = path / "bad_images.csv"
        self.backbone = path / "backbone.safetensors"
        self.checkpoints = path / "checkpoints"
        self.last_checkpoint = self.checkpoints / LAST
        self.nonfinite = path / "nonfinite.jsonl"
        self.tensorboard = path / "tensorboard"
        self.continues = False
        """Whether the run goes on from its last checkpoint; :meth:`check` decides it."""

    def check(self, settings: RunSettings) -> None:
        """Refuse a folder that this run must not or cannot use, before any work and without writing.

        Also decides whether the run continues: with ``resume=auto`` if there is a checkpoint. Raises ValueError if the
        folder is not empty and ``resume`` is off, there is nothing to resume, the settings differ, or it cannot be
        written to.
        """
        check_loggers(settings.logger)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"output={self.path} is a file: give a folder.")
        names = {entry.name for entry in self.path.iterdir()} if self.path.is_dir() else set()
        used = any(not name.endswith(".partial") for name in names - {_LOCK})
        has_checkpoint = bool(kept_checkpoints(self.checkpoints))
        self.continues = settings.resume is True or (settings.resume == "auto" and has_checkpoint)
        if self.continues:
            if not has_checkpoint:
                reason = "the run there ended before its first checkpoint" if used else "there is no run"
                raise ValueError(
                    f"resume=true, but {self.last_checkpoint} does not exist ({reason}): leave out resume."
                )
            self._check_same_settings(settings)
        elif settings.resume == "auto" and self.config.is_file():  # killed before its first checkpoint: start again
            self._check_same_settings(settings)
        elif used and has_checkpoint:
            raise ValueError(
                f"output={self.path} already holds a run: add resume=true to continue it, or choose another folder."
            )
        elif used and self.config.is_file():
            raise ValueError(
                f"output={self.path} holds a run that ended before its first checkpoint: "
                "add resume=auto to start it again, or choose another folder."
            )
        elif used:
            raise ValueError(f"output={self.path} is not empty: choose a new or an empty folder.")
        parent = next(folder for folder in (self.path.absolute(), *self.path.absolute().parents) if folder.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise ValueError(f"output={self.path} cannot be written: {parent} is not a writable folder.")

    def _check_same_settings(self, settings: RunSettings) -> None:
        before = read_settings(self.config, type(settings))
        changed = [f"{key} was {old} and is now {new}" for key, old, new in changed_settings(before, settings)]
        if changed:
            has_weights = isinstance(settings, PretrainSettings) and self.newest_checkpoint is not None
            another = "with init_from=" if has_weights else "in another folder"
            raise ValueError(
                f"resume={str(settings.resume).lower()} continues {self.path} with its own settings, but "
                f"{'; '.join(changed)}: "
                f"leave these as they were, or start a new run {another}."
            )

    def create(self, settings: RunSettings) -> None:
        """Make the folder, ``config.yaml`` and ``environment.json``. Raises ValueError if the file system refuses."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._claim()
            remove_partial_files(self.checkpoints)
            if not self.continues:
                write_whole(self.config, to_yaml(settings))  # first: it marks the folder as this run's
                write_whole(self.environment, json.dumps(_environment(), indent=2) + "\n")
                # Left by a run with resume=auto that was killed before its first checkpoint.
                for left in (self.metrics, *self.tensorboard.glob("events.out.tfevents.*")):
                    left.unlink(missing_ok=True)
            self.checkpoints.mkdir(exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"output={self.path} cannot be written ({error.strerror}): choose another folder."
            ) from None

    def _claim(self) -> None:
        """Keep other processes from writing here as long as this object lives, where the file system has locks."""
        try:
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return  # of another user's, in a shared folder
        weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise ValueError(
                    f"output={self.path} is being written by another process or an open notebook: let it end, or "
                    "choose another folder."
                ) from None

    @property
    def newest_checkpoint(self) -> Path | None:
        """The newest checkpoint from which the run can continue, or None."""
        return next(iter(kept_checkpoints(self.checkpoints)), None)

    def append(self, file: Path, record: dict[str, Any]) -> None:
        """Add one line to ``metrics`` or ``nonfinite``."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(finite) + "\n")

    def drop_metrics_after(self, step: int) -> None:
        """Remove the lines of steps that a resumed run will repeat."""
        if self.metrics.exists():
            lines = self.metrics.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step_of(line) <= step]
            write_whole(self.metrics, "".join(f"{line}\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line cut short by a crash


def changed_settings(
    before: RunSettings, now: RunSettings, *, free: tuple[str, ...] = _FREE_TO_CHANGE
) -> list[tuple[str, Any, Any]]:
    """Name and both values of each setting that differs, except those that begin with one of ``free``."""
    old, new = (flat_settings(settings.model_dump(mode="json")) for settings in (before, now))
    return [(key, old[key], new[key]) for key in new if old[key] != new[key] and not key.startswith(free)]


def package_versions(names: Iterable[str] = _PACKAGES) -> dict[str, str | None]:
    """Versions of packages, by default of those that may affect a run's results; None where one is missing."""
    return {name: _version(name) for name in names}


def _environment() -> dict[str, Any]:
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_cores": available_cores(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": package_versions(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
