"""One evaluation that is ready to run: the model, the sets and where to compute."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from sslight.config import EvaluateSettings
from sslight.data import CropLoader, Source, check_bad_share, data_fingerprint, left_out_notes
from sslight.evaluate.classifiers.metrics import Accuracy, accuracy_of_ranks, largest_confusions
from sslight.evaluate.features.cache import cached_features
from sslight.evaluate.features.extract import EvalTransform, Extraction, left_out
from sslight.evaluate.model import EvaluatedModel
from sslight.evaluate.sets import LabeledSets
from sslight.train import RunFolder, RunOptions, Task, train
from sslight.train.record.progress import Progress
from sslight.train.task import Loader


@dataclass(frozen=True)
class Measurement:
    """What a protocol found on the N images of data.val that could be read."""

    protocol: str  # its name in results
    accuracy: Accuracy
    confusions: list[dict[str, Any]]  # as largest_confusions gives them
    ranks: Tensor  # [N, 2], what accuracy counts, as label_ranks gives them
    rows: Tensor  # [N], positions in data.val
    details: dict[str, Any]  # what was decided on the way, plain data
    by_k: dict[int, Accuracy] = field(default_factory=dict)  # of kNN
    notes: list[str] = field(default_factory=list)  # what a reader must know, a sentence each
    tensors: dict[str, Tensor] = field(default_factory=dict)  # the trained classifier, to be saved beside the result
    fine_tuned: nn.Module | None = None  # the backbone, if it was trained too


class Features(NamedTuple):
    """Of the readable images of a set: ``values [N, D]`` mapped from the disk, ``labels [N]``, and their positions."""

    values: Tensor
    labels: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Evaluation:
    """Model, sets and place of an evaluation; ``cache`` is the folder of features, ``run`` that of the result."""

    settings: EvaluateSettings
    model: EvaluatedModel
    sets: LabeledSets
    transform: EvalTransform
    how: Extraction
    cache: Path
    run: RunFolder
    fabric: Fabric
    progress: Progress

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.fabric.device

    def crops(self, *, batch_size: int, part_size: int | None = None, smallest_step: int = 1) -> CropLoader:
        """Random crops of data.train for this process."""
        return CropLoader(
            self.sets.train,
            size=self.transform.image_size,
            batch_size=batch_size,
            part_size=part_size,
            smallest_step=smallest_step,
            seed=self.settings.seed,
            rank=self.fabric.global_rank,
            world_size=self.fabric.world_size,
            workers=self.how.workers,
            max_bad_share=self.settings.data.max_bad_share,
            limits=self.how.limits,
        )

    def train(self, task: Task, loader: Loader, *, placement: str) -> None:
        """Train a part of the protocol in the folder of the result; a second start goes on where the first ended."""
        settings = self.settings
        options = RunOptions(
            settings=settings,
            **settings.checkpoint.model_dump(),
            placement=placement,
            data={"data.train": data_fingerprint(self.sets.train)},
            lighter="a smaller semi.batch_size or feature_batch_size, precision=bf16, a smaller image_size",
        )
        if self.fabric.is_global_zero:
            self.run.create(settings)
        self.fabric.barrier()
        train(task, fabric=self.fabric, loader=loader, run=self.run, options=options)

    def features(self, backbone: nn.Module, source: Source, labels: npt.NDArray[np.int64], setting: str) -> Features:
        """The features of a set, on the CPU; ValueError if too many images are unreadable, or any is not finite."""
        with self.progress:
            self.progress.stage(f"features of {setting}", len(source), unit="image")
            cached = cached_features(
                backbone, source, self.transform, self.how, folder=self.cache, progress=self.progress.advance
            )
        bad = left_out(source, cached.indices, self.how)
        check_bad_share(cached.num_unreadable, len(source), setting, self.settings.data.max_bad_share, bad)
        self.sets.notes.extend(left_out_notes(cached.num_unreadable, len(source), setting))
        where = "from the cache" if cached.from_cache else "computed"
        without = f", {cached.num_unreadable} unreadable images left out" if cached.num_unreadable else ""
        self.progress.say(f"features of {setting}: {len(cached.indices):,} images, {where}{without}")
        rows = cached.indices
        return Features(cached.features, torch.from_numpy(labels[rows]), torch.from_numpy(rows))

    def both_features(self, backbone: nn.Module) -> tuple[Features, Features]:
        """Those of data.train and of data.val."""
        return (
            self.features(backbone, self.sets.train, self.sets.train_labels, "data.train"),
            self.features(backbone, self.sets.val, self.sets.val_labels, "data.val"),
        )

    def measured(
        self, protocol: str, answers: Tensor, labels: Tensor, rows: Tensor, details: dict[str, Any], **more: Any
    ) -> Measurement:
        """What a protocol found, from :func:`label_answers` for the images of data.val at ``rows`` with ``labels``."""
        accuracy = accuracy_of_ranks(answers, labels, self.sets.classes)
        confusions = largest_confusions(answers, labels, self.sets.classes)
        return Measurement(protocol, accuracy, confusions, answers[:, :2], rows, details, **more)
