"""A detector that is ready to be trained and measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sslight.config import DetectSettings
from sslight.data import DetectionSet, ReadLimits, check_readable, open_detection_sets
from sslight.evaluate.detection.detector import build_detector
from sslight.evaluate.detection.schedule import DetectionSchedule, detection_schedule
from sslight.evaluate.model import load_model
from sslight.evaluate.results import checkpoint_facts, result_folder


@dataclass(frozen=True)
class DetectionTask:
    """All that training and measuring need.

    Attributes:
        settings: Of the run.
        detector: With the pre-trained backbone, in training mode.
        checkpoint: Where the backbone comes from, plain data for the result.
        train: Images with something to learn from.
        num_without_objects: Images of the training split that have nothing to learn from and are left out.
        val: Images to measure on, all of them.
        schedule: Of the training.
        folder: The run folder.
    """

    settings: DetectSettings
    detector: nn.Module
    checkpoint: dict[str, Any]
    train: DetectionSet
    num_without_objects: int
    val: DetectionSet
    schedule: DetectionSchedule
    folder: Path


def prepare_detection(settings: DetectSettings) -> DetectionTask:
    """Whatever can be refused is refused here, the cheapest first; nothing is trained or written.

    Raises:
        ValueError: the checkpoint, the data or a setting is wrong.
    """
    if settings.data is None:
        raise ValueError("data is not set: give a COCO or Pascal VOC folder, such as data=coco.")
    model = load_model(settings.checkpoint, network=settings.network, seed=settings.seed)
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
    detector = build_detector(
        model.backbone,
        name=model.info.name,
        num_categories=len(train.categories),
        masks=settings.masks,
        strides=settings.strides,
        proposals=settings.proposals,
        mean=model.info.mean,
        std=model.info.std,
        seed=settings.seed,
    )
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
