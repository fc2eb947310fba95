"""A trained detector measured on the validation images, and the files that remain."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from sslight.backbones import eval_mode
from sslight.data import (
    BadImage,
    DetectionSet,
    ReadLimits,
    data_fingerprint,
    encode_mask,
    evenly_spread,
    measured_images,
    too_many_bad,
)
from sslight.data.sources.bad_images import describe
from sslight.evaluate.detection.average_precision import (
    AveragePrecision,
    Prediction,
    coco_average_precision,
    voc_average_precision,
)
from sslight.evaluate.detection.draw import draw_sample
from sslight.evaluate.detection.pyramid import BackboneWithPyramid
from sslight.evaluate.detection.task import DetectionTask
from sslight.evaluate.results import FILE_NAME, write_content, write_tensors
from sslight.files import write_whole
from sslight.train.machine.distributed import gathered, own_share, rank_and_size
from sslight.train.record.progress import Progress

_DECIMALS = 3


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

    The trained detector is on ``device``; ``training`` is what to say of its training, plain data. ValueError if too
    many images are unreadable.
    """
    settings, images = task.settings, task.val
    rank, size = rank_and_size()
    progress = Progress(shown=rank == 0)
    bad: list[BadImage] = []
    with progress:
        progress.stage("predictions", -(-len(images) // size))
        own = _predict(task, device, workers, bad, progress)
    predictions = [each for part in gathered(own) for each in part]
    num_unreadable = sum(gathered(len(bad)))
    if too_many_bad(num_unreadable, len(images), settings.max_bad_share):
        raise ValueError(
            f"{num_unreadable} of the {len(images)} images of val_split={images.split} are unreadable, more than "
            f"max_bad_share={settings.max_bad_share:g} allows{f': {describe(bad)}' if bad else ''}; repair them, or "
            f"raise max_bad_share, and measure the trained detector with resume=true."
        )
    if rank > 0:
        return None
    progress.say(f"comparing {len(predictions):,} predictions in {len(images):,} images")
    return _write(task, predictions, {**training, "unreadable_val": num_unreadable})


@torch.no_grad()
def _predict(
    task: DetectionTask, device: torch.device, workers: int, bad: list[BadImage], progress: Progress
) -> list[Prediction]:
    """The predictions of this process's share of the images; unreadable ones are added to ``bad``."""
    settings, images = task.settings, task.val
    found: list[Prediction] = []
    kind = torch.float16 if settings.precision == "16" else torch.bfloat16
    with eval_mode(task.detector):
        for batch in measured_images(
            images,
            size=settings.test_size,
            longest=settings.max_size,
            indices=own_share(np.arange(len(images))),
            workers=workers,
            bad=bad,
            limits=ReadLimits(settings.max_pixels, settings.read_timeout),
        ):
            pixels = batch.to(device).images[0].float() / 255
            with torch.autocast(device.type, dtype=kind, enabled=settings.precision != "32"):
                output = task.detector([pixels])[0]
            found += _predictions(output, images, int(batch.indices[0]), pixels.shape[1:])
            progress.advance(1)
    return found


def _predictions(output: dict[str, Tensor], images: DetectionSet, index: int, size: Sequence[int]) -> list[Prediction]:
    """The detector's output for one image, mapped to the annotated image; the host waits for the device."""
    image = images.images[index]
    scale = torch.tensor([image.width / size[1], image.height / size[0]] * 2, device=output["boxes"].device)
    corners = (output["boxes"].float() * scale).cpu()
    masks: list[dict[str, object]] | list[None] = [None] * len(corners)
    if "masks" in output:
        probabilities = output["masks"].float().cpu()
        masks = [
            encode_mask((paste_masks_in_image(mask[None], box[None], (image.height, image.width))[0, 0] >= 0.5).numpy())
            for mask, box in zip(probabilities, corners, strict=True)
        ]
    boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).double().numpy()
    # Rounded, so that what is written is what is measured.
    boxes = boxes.round(_DECIMALS).tolist()
    return [
        Prediction(index, label - 1, (box[0], box[1], box[2], box[3]), score, mask)
        for box, label, score, mask in zip(
            boxes, output["labels"].tolist(), output["scores"].double().tolist(), masks, strict=True
        )
    ]


def write_predictions(path: Path, images: DetectionSet, predictions: Sequence[Prediction]) -> None:
    """Write predictions as COCO's result format, with the ids of the annotation files."""
    results = []
    for each in predictions:
        result: dict[str, Any] = {
            "image_id": images.images[each.image].key,
            "category_id": images.category_keys[each.label],
            "bbox": list(each.box),
            "score": each.score,
        }
        if each.mask is not None:
            result["segmentation"] = {"size": each.mask["size"], "counts": each.mask["counts"].decode("ascii")}
        results.append(result)
    write_whole(path, json.dumps(results) + "\n")


def _write(task: DetectionTask, predictions: list[Prediction], training: dict[str, Any]) -> DetectionResult:
    settings, images, folder = task.settings, task.val, task.folder
    boxes = coco_average_precision(images, predictions) if images.kind == "coco" else None
    boxes = boxes or voc_average_precision(images, predictions)
    masks = coco_average_precision(images, predictions, masks=True) if settings.masks else None
    write_predictions(folder / "predictions.json", images, predictions)
    write_tensors(folder / "detector.safetensors", task.detector.state_dict())
    sample = None
    if settings.sample:
        sample = folder / "sample.png"
        draw_sample(sample, images, predictions, evenly_spread(len(images), settings.sample).tolist())
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
            "val": {"split": images.split, "num_images": len(images), "sha256": data_fingerprint(images).sha256},
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
        notes.append(f"{task.num_without_objects} training images without objects were left out.")
    if training["unreadable_val"]:
        notes.append(f"the objects of {training['unreadable_val']} unreadable validation images count as missed.")
    if task.val.split == task.train.split:
        notes.append("measured on the training images: this says nothing about other images.")
    return notes


def _in_percent(value: AveragePrecision) -> dict[str, Any]:
    """In percent, as detection results are published."""
    content = asdict(value)
    per_category = content.pop("per_category") or {}
    percent = {name: None if share is None else round(100 * share, 6) for name, share in content.items()}
    return {**percent, "per_category": {name: round(100 * share, 6) for name, share in per_category.items()}}
