"""Average precision of predicted boxes and masks, by COCO's rules and by Pascal VOC's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster

from sslight.data import DetectionSet

Floats = npt.NDArray[np.float64]

_VOC_RECALLS = np.linspace(0.0, 1.0, 11)


@dataclass(frozen=True, slots=True)
class Prediction:
    """One predicted object.

    Attributes:
        image: Position of its image in the set.
        label: Position of its category in the set's categories.
        box: Left, top, width and height in px of the annotated image.
        score: The higher, the surer.
        mask: Run lengths as in :data:`~sslight.data.Segmentation`, or None.
    """

    image: int
    label: int
    box: tuple[float, float, float, float]
    score: float
    mask: dict[str, Any] | None = None


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision, a share between 0 and 1 each; None where a set has no object to measure it by.

    Attributes:
        ap: Mean over IoU thresholds 0.5, 0.55, ... 0.95 and categories (COCO only).
        ap50, ap75: At one threshold (VOC: 0.5 only).
        small, medium, large: Objects below 32², below 96² and from 96² px² on (COCO only).
        per_category: By name, ``ap`` of COCO and ``ap50`` of VOC, for the categories that the set has.
    """

    ap50: float | None
    ap: float | None = None
    ap75: float | None = None
    small: float | None = None
    medium: float | None = None
    large: float | None = None
    per_category: dict[str, float] | None = None


def coco_average_precision(
    images: DetectionSet, predictions: Sequence[Prediction], *, masks: bool = False
) -> AveragePrecision:
    """By COCO's rules: 101 recalls, up to 100 predictions an image, crowds neither right nor wrong.

    A prediction of a category that its image does not have is wrong; categories that no image has do not
    count.

    Args:
        images: The annotated images, all of them.
        predictions: In any order.
        masks: Compare masks instead of boxes.
    """
    truth = _coco_truth(images, masks=masks)
    found = truth.loadRes([_coco_result(each, masks=masks) for each in predictions])
    evaluation = COCOeval_faster(truth, found, "segm" if masks else "bbox", print_function=_silent)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    ap, ap50, ap75, small, medium, large = (None if value < 0 else float(value) for value in evaluation.stats[:6])
    precision: Floats = evaluation.eval["precision"][:, :, :, 0, -1]  # [thresholds, recalls, categories]
    per_category = {
        name: float(precision[:, :, position].mean())
        for position, name in enumerate(images.categories)
        if precision[0, 0, position] > -1
    }
    return AveragePrecision(ap50, ap, ap75, small, medium, large, per_category)


def _silent(*_: object) -> None:
    pass


def _coco_truth(images: DetectionSet, *, masks: bool) -> COCO:
    annotations: list[dict[str, Any]] = []
    for position, image in enumerate(images.images):
        for each in image.instances:
            annotation: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": position,
                "category_id": each.label,
                "bbox": list(each.box),
                "area": each.area,
                "iscrowd": int(each.crowd),
            }
            if masks:
                annotation["segmentation"] = each.segmentation
            annotations.append(annotation)
    truth = COCO()
    truth.dataset = {
        "images": [
            {"id": position, "height": image.height, "width": image.width}
            for position, image in enumerate(images.images)
        ],
        "annotations": annotations,
        "categories": [{"id": label, "name": name} for label, name in enumerate(images.categories)],
    }
    truth.createIndex()
    return truth


def _coco_result(prediction: Prediction, *, masks: bool) -> dict[str, Any]:
    result: dict[str, Any] = {
        "image_id": prediction.image,
        "category_id": prediction.label,
        "score": prediction.score,
    }
    # One of the two only: the area by which predictions count as small or large follows from it.
    if masks:
        assert prediction.mask is not None
        return {**result, "segmentation": prediction.mask}
    return {**result, "bbox": list(prediction.box)}


def voc_average_precision(images: DetectionSet, predictions: Sequence[Prediction]) -> AveragePrecision:
    """By the rules of Pascal VOC 2007: at IoU 0.5, mean of the best precision from 11 recalls 0, 0.1, ... 1 on.

    Everingham et al., IJCV 2010, section 4.2. A prediction belongs to the object that it overlaps most; it
    is right if that is by 0.5 or more and no better prediction took the object. Difficult objects are
    neither counted nor wrong to find.
    """
    per_category = {}
    for label, name in enumerate(images.categories):
        value = _voc_category(images, [each for each in predictions if each.label == label], label)
        if value is not None:
            per_category[name] = value
    mean = float(np.mean(list(per_category.values()))) if per_category else None
    return AveragePrecision(ap50=mean, per_category=per_category)


def _voc_category(images: DetectionSet, predictions: list[Prediction], label: int) -> float | None:
    """Average precision of one category; None if it has no object."""
    objects = [[each for each in image.instances if each.label == label] for image in images.images]
    num_objects = sum(not each.difficult for image in objects for each in image)
    if not num_objects:
        return None
    taken = [[False] * len(image) for image in objects]
    right, wrong = [], []
    for each in sorted(predictions, key=lambda prediction: -prediction.score):
        overlaps = [_overlap(each.box, known.box) for known in objects[each.image]]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best < 0 or overlaps[best] < 0.5:
            right.append(0)
            wrong.append(1)
        elif not objects[each.image][best].difficult:
            right.append(int(not taken[each.image][best]))
            wrong.append(int(taken[each.image][best]))
            taken[each.image][best] = True
    if not right:
        return 0.0
    num_right, num_wrong = np.cumsum(right), np.cumsum(wrong)
    recall = num_right / num_objects
    precision = num_right / (num_right + num_wrong)
    # 1e-9, because a recall of 3 / 10 must reach the third level whatever rounding made of both.
    return float(np.mean([precision[recall >= level - 1e-9].max(initial=0.0) for level in _VOC_RECALLS]))


def _overlap(box: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    """Intersection over union of two boxes given by left, top, width and height."""
    width = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
    height = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = box[2] * box[3] + other[2] * other[3] - shared
    return shared / union if union > 0 else 0.0
