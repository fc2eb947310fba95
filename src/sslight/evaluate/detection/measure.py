"""A trained detector measured on the validation images, and the files that remain."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from sslight.data import BadImage, ReadLimits, data_fingerprint
from sslight.data.sources.bad_images import describe
from sslight.evaluate.detection.average_precision import (
    AveragePrecision,
    Prediction,
    coco_average_precision,
    voc_average_precision,
)
from sslight.evaluate.detection.draw import draw_sample, sampled
from sslight.evaluate.detection.predict import predict, write_predictions
from sslight.evaluate.detection.pyramid import BackboneWithPyramid
from sslight.evaluate.detection.task import DetectionTask
from sslight.evaluate.results import FILE_NAME, write_content
from sslight.files import whole_file
from sslight.train.distributed import gathered, rank_and_size
from sslight.train.progress import Progress


@dataclass(frozen=True)
class DetectionResult:
    """A finished detection run: its ``results.json``, what was measured, and the drawn sample if asked for."""

    path: Path
    boxes: AveragePrecision
    masks: AveragePrecision | None
    sample: Path | None
    content: dict[str, Any]


def measure_detection(
    task: DetectionTask, *, device: torch.device, workers: int, training: dict[str, Any]
) -> DetectionResult | None:
    """Predict, compare and write the results; None in all processes but the first.

    Args:
        task: With the trained detector, which is on ``device``.
        device: Where this process computes.
        workers: Processes that decode images, 0 for none.
        training: What to say of the training, plain data.

    Raises:
        ValueError: too many images are unreadable.
    """
    settings, images = task.settings, task.val
    rank, size = rank_and_size()
    progress = Progress(shown=rank == 0)
    bad: list[BadImage] = []
    with progress:
        progress.stage("predictions", -(-len(images) // size))
        own = predict(
            task.detector,
            images,
            size=settings.test_size,
            longest=settings.max_size,
            precision=settings.precision,
            device=device,
            workers=workers,
            bad=bad,
            limits=ReadLimits(settings.max_pixels, settings.read_timeout),
            progress=progress.advance,
        )
    predictions = [each for part in gathered(own) for each in part]
    num_unreadable = sum(gathered(len(bad)))
    if num_unreadable > settings.max_bad_share * len(images):
        raise ValueError(
            f"{num_unreadable} of the {len(images)} images of val_split={images.split} are unreadable, more than "
            f"max_bad_share={settings.max_bad_share:g} allows{f': {describe(bad)}' if bad else ''}; repair them, or "
            f"raise max_bad_share, and measure the trained detector with resume=true."
        )
    if rank > 0:
        return None
    progress.say(f"comparing {len(predictions):,} predictions in {len(images):,} images")
    return _write(task, predictions, {**training, "unreadable_val": num_unreadable})


def _write(task: DetectionTask, predictions: list[Prediction], training: dict[str, Any]) -> DetectionResult:
    settings, images, folder = task.settings, task.val, task.folder
    boxes = coco_average_precision(images, predictions) if images.kind == "coco" else None
    boxes = boxes or voc_average_precision(images, predictions)
    masks = coco_average_precision(images, predictions, masks=True) if settings.masks else None
    write_predictions(folder / "predictions.json", images, predictions)
    with whole_file(folder / "detector.safetensors", "wb") as file:
        state = {name: value.detach().cpu().contiguous() for name, value in task.detector.state_dict().items()}
        file.write(safetensors.torch.save(state))
    sample = None
    if settings.sample:
        sample = folder / "sample.png"
        draw_sample(sample, images, predictions, sampled(images, settings.sample))
    pyramid = task.detector.backbone
    assert isinstance(pyramid, BackboneWithPyramid)
    content = write_content(
        folder / FILE_NAME,
        protocol="detect",
        checkpoint=task.checkpoint,
        boxes=_in_percent(boxes),
        **({} if masks is None else {"masks": _in_percent(masks)}),
        data={
            "kind": images.kind,
            "path": settings.data,
            "train": {"split": task.train.split, "num_images": len(task.train)},
            "val": {
                "split": images.split,
                "num_images": len(images),
                "sha256": data_fingerprint(images).sha256,
            },
            "num_categories": len(images.categories),
        },
        notes=_notes(task, training),
        details={**asdict(task.schedule), "strides": list(pyramid.strides), **training},
        settings=settings.model_dump(mode="json"),
    )
    return DetectionResult(folder / FILE_NAME, boxes, masks, sample, content)


def _notes(task: DetectionTask, training: dict[str, Any]) -> list[str]:
    notes = []
    if task.num_without_objects:
        notes.append(f"{task.num_without_objects} training images without an object were left out.")
    if training["unreadable_val"]:
        notes.append(f"the objects of {training['unreadable_val']} unreadable validation images count as missed.")
    if task.val.split == task.train.split:
        notes.append("measured on the training images: this says nothing of other images.")
    return notes


def _in_percent(value: AveragePrecision) -> dict[str, Any]:
    """In percent, as detection results are published."""
    content = asdict(value)
    per_category = content.pop("per_category") or {}
    percent = {name: None if share is None else round(100 * share, 6) for name, share in content.items()}
    return {**percent, "per_category": {name: round(100 * share, 6) for name, share in per_category.items()}}
