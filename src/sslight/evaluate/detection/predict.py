"""What a detector finds in the images of a set."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image

from sslight.data import BadImage, DetectionSet, ReadLimits, encode_mask, measured_images
from sslight.evaluate.detection.average_precision import Prediction
from sslight.evaluate.features.extract import eval_mode
from sslight.files import write_whole
from sslight.train.distributed import own_share

_DECIMALS = 3


@torch.no_grad()
def predict(
    detector: nn.Module,
    images: DetectionSet,
    *,
    size: int,
    longest: int,
    precision: str,
    device: torch.device,
    workers: int,
    bad: list[BadImage],
    limits: ReadLimits,
    progress: Callable[[int], None],
) -> list[Prediction]:
    """The predictions of this process's share of the images; the detector's training mode is put back afterwards.

    Args:
        detector: From :func:`~sslight.evaluate.detection.detector.build_detector`.
        images: All of them.
        size: Length of the shorter side in px.
        longest: Largest length of the longer side in px.
        precision: ``32``, ``bf16`` or ``16``.
        device: On which the detector is.
        workers: Processes that decode.
        bad: Unreadable images are added to it.
        limits: What reading and decoding one image may take.
        progress: Called with the number of images that are done.
    """
    found: list[Prediction] = []
    kind = torch.float16 if precision == "16" else torch.bfloat16
    with eval_mode(detector):
        share = own_share(np.arange(len(images)))
        for batch in measured_images(
            images, size=size, longest=longest, indices=share, workers=workers, bad=bad, limits=limits
        ):
            pixels = batch.to(device).images[0].float() / 255
            with torch.autocast(device.type, dtype=kind, enabled=precision != "32"):
                output = detector([pixels])[0]
            found += _predictions(output, images, int(batch.indices[0]), pixels.shape[1:])
            progress(1)
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
