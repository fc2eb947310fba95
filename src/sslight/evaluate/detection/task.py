"""A detector that is ready to be trained and measured, and its training as a task of the loop."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from sslight.config import DetectSettings
from sslight.data import (
    DetectionBatch,
    DetectionSet,
    ReadLimits,
    check_readable,
    data_fingerprint,
    open_detection_sets,
)
from sslight.evaluate.detection.detector import L1BoxLoss, build_detector
from sslight.evaluate.detection.schedule import DetectionSchedule, detection_optimizer, detection_schedule
from sslight.evaluate.model import load_model
from sslight.evaluate.results import checkpoint_facts, result_folder
from sslight.optim import set_rates
from sslight.train import Output, RunOptions, Task


@dataclass(frozen=True)
class DetectionTask:
    """All that training and measuring need."""

    settings: DetectSettings
    detector: nn.Module  # with the pre-trained backbone, in training mode
    checkpoint: dict[str, Any]  # where the backbone comes from, plain data for the result
    train: DetectionSet  # images with something to learn from
    num_without_objects: int  # images of the training split that have nothing to learn from and are left out
    val: DetectionSet  # all images to measure on
    schedule: DetectionSchedule
    folder: Path


def prepare_detection(settings: DetectSettings) -> DetectionTask:
    """Whatever can be refused (ValueError) is refused here, the cheapest first; nothing is trained or written."""
    if settings.data is None:
        raise ValueError("data is not set: give a COCO or Pascal VOC folder, such as data=coco.")
    model = load_model(settings.model, network=settings.network, seed=settings.seed)
    checkpoint = checkpoint_facts(settings, model)
    train, val = open_detection_sets(
        settings.data, train_split=settings.train_split, val_split=settings.val_split, masks=settings.masks
    )
    trainable = train.trainable()
    for role, images, num_objects in (
        ("train", trainable, len(trainable)),
        ("val", val, sum(not (each.crowd or each.difficult) for image in val.images for each in image.instances)),
    ):
        if not num_objects:
            raise ValueError(f"{role}_split={images.split} has no image with an object: give another split.")
        limits = ReadLimits(settings.max_pixels, settings.read_timeout)
        check_readable(images, setting=f"data={settings.data}", limits=limits)
    detector = build_detector(model.backbone, model.info, settings, num_categories=len(train.categories))
    return DetectionTask(
        settings=settings,
        detector=detector.train(),
        checkpoint=checkpoint,
        train=trainable,
        num_without_objects=len(train) - len(trainable),
        val=val,
        schedule=detection_schedule(settings, train.kind),
        folder=result_folder(settings, "detect", checkpoint),
    )


def build_detection_task(detection: DetectionTask, fabric: Fabric) -> tuple[Task, RunOptions]:
    """What the loop needs to train the detector, which gives losses by name and is changed in place."""
    settings, detector, schedule = detection.settings, detection.detector, detection.schedule
    optimizer = detection_optimizer(detector, settings.weight_decay)

    def set_scheduled(step: int) -> dict[str, float]:
        set_rates(optimizer, lr=schedule.rate_at(step), weight_decay=settings.weight_decay)
        return {"lr": schedule.rate_at(step)}

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
        total_steps=schedule.total_steps,
        batch_size=settings.batch_size,
        figures=lambda losses: {"loss": math.fsum(losses.values())},
        remedy=remedy,
    )
    options = RunOptions(
        settings=settings,
        **settings.checkpoint.model_dump(),
        placement=f"training a detector in {fabric.world_size} process{'es' * (fabric.world_size > 1)}",
        data={"data": data_fingerprint(detection.train)},
        lighter="a smaller batch_size, precision=bf16, smaller images (train_sizes, max_size), fewer workers",
    )
    return task, options
