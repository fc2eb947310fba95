"""A detector as a task of the training loop."""

import math
from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import Optimizer

from sslight.config import DetectSettings
from sslight.data import DetectionBatch, Source, data_fingerprint
from sslight.evaluate.detection.detector import L1BoxLoss
from sslight.optim import set_rates
from sslight.train import Output, RunOptions, Task


def build_detection_task(
    settings: DetectSettings,
    detector: nn.Module,
    fabric: Fabric,
    *,
    optimizer: Optimizer,
    rate_at: Callable[[int], float],
    total_steps: int,
    images: Source,
) -> tuple[Task, RunOptions]:
    """What the loop needs to train a detector.

    Args:
        settings: Only batch, decay, logging and checkpoints are read here.
        detector: Gives losses by name for a list of images [3, h, w] of 0–1 and their targets; changed in place.
        fabric: Launched Fabric.
        optimizer: Of the detector.
        rate_at: Learning rate of a step, counted from 0.
        total_steps: Length of the run.
        images: Of the training set; a resumed run must find the same ones.
    """

    def set_scheduled(step: int) -> dict[str, float]:
        set_rates(optimizer, lr=rate_at(step), weight_decay=settings.weight_decay)
        return {"lr": rate_at(step)}

    def loss(wrapped: nn.Module, batch: DetectionBatch, step: int) -> Output:
        with L1BoxLoss():
            losses = wrapped([image.float() / 255 for image in batch.images], batch.targets)
        return Output(
            torch.stack(list(losses.values())).sum(), {name: value.detach() for name, value in losses.items()}
        )

    def remedy(newest: object) -> str:
        rate = f"a lower lr (it was {settings.lr:g})"
        return f"start a new run with {rate}, a longer warm-up (warmup_steps) or precision=32."

    task = Task(
        module=detector,
        optimizer=optimizer,
        loss=loss,
        set_rates=set_scheduled,
        total_steps=total_steps,
        batch_size=settings.batch_size,
        figures=lambda losses: {"loss": math.fsum(losses.values())},
        remedy=remedy,
    )
    options = RunOptions(
        settings=settings,
        seed=settings.seed,
        precision=settings.precision,
        resume=settings.resume,
        log_every=settings.log_every,
        logger=settings.logger,
        every_steps=settings.checkpoint_every_steps,
        every_minutes=settings.checkpoint_every_minutes,
        placement=f"training a detector on {fabric.world_size} process(es)",
        data={"data": data_fingerprint(images)},
        lighter="a smaller batch_size, precision=bf16, smaller images (train_sizes, max_size), fewer workers",
    )
    return task, options
