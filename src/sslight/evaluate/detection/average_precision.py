"""Average precision of predicted boxes and masks, by COCO's rules and by Pascal VOC's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask

from sslight.data import DetectionSet, Instance

Floats = npt.NDArray[np.float64]

_VOC_RECALLS = np.linspace(0.0, 1.0, 11)


@dataclass(frozen=True, slots=True)
class Prediction:
    """One predicted object."""

    image: int  # position in the set
    label: int  # position of its category in the set's categories
    box: tuple[float, float, float, float]  # left, top, width, height in px of the annotated image
    score: float  # the higher, the surer
    mask: dict[str, Any] | None = None  # run lengths as in sslight.data.Segmentation


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision, a share between 0 and 1 each; None where a set has no object to measure it by, or for VOC."""

    ap50: float | None  # at the IoU threshold 0.5
    ap: float | None = None  # mean over the thresholds 0.5, 0.55, ... 0.95 and categories
    ap75: float | None = None
    small: float | None = None  # objects below 32² px²
    medium: float | None = None  # below 96² px²
    large: float | None = None  # from 96² px² on
    per_category: dict[str, float] | None = None  # ap of COCO, ap50 of VOC, by name


def coco_average_precision(
    images: DetectionSet, predictions: Sequence[Prediction], *, masks: bool = False
) -> AveragePrecision:
    """By COCO's rules: 101 recalls, up to 100 predictions an image, crowds neither right nor wrong.

    A prediction of a category that its image does not have is wrong; categories that no image has do not count.
    ``masks`` compares masks instead of boxes.
    """
    truth = COCO()
    truth.dataset = _annotations(images, masks=masks)
    truth.createIndex()
    found = truth.loadRes(
        [
            # One of the two only: the area by which predictions count as small or large follows from it.
            {"image_id": each.image, "category_id": each.label, "score": each.score}
            | ({"segmentation": each.mask} if masks else {"bbox": list(each.box)})
            for each in predictions
        ]
    )
    evaluation = COCOeval_faster(truth, found, "segm" if masks else "bbox", print_function=lambda *_: None)
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


def _annotations(images: DetectionSet, *, masks: bool) -> dict[str, Any]:
    """The set as COCO's annotation file has it, by positions; with boxes, or with masks too."""
    instances = [(position, each) for position, image in enumerate(images.images) for each in image.instances]
    return {
        "images": [
            {"id": position, "height": image.height, "width": image.width}
            for position, image in enumerate(images.images)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": position,
                "category_id": each.label,
                "bbox": list(each.box),
                "area": each.area,
                "iscrowd": int(each.crowd),
                **({"segmentation": each.segmentation} if masks else {}),
            }
            for number, (position, each) in enumerate(instances, 1)
        ],
        "categories": [{"id": label, "name": name} for label, name in enumerate(images.categories)],
    }


def voc_average_precision(images: DetectionSet, predictions: Sequence[Prediction]) -> AveragePrecision:
    """By the rules of Pascal VOC 2007: at IoU 0.5, mean of the best precision from 11 recalls 0, 0.1, ... 1 on.

    Everingham et al., IJCV 2010, section 4.2. A prediction belongs to the object that it overlaps most; it
    is right if that is by 0.5 or more and no better prediction took the object. Difficult objects are
    neither counted nor wrong to find.
    """
    per_category = {}
    for label, name in enumerate(images.categories):
        objects = [[each for each in image.instances if each.label == label] for image in images.images]
        if number := sum(not each.difficult for known in objects for each in known):
            found = sorted((each for each in predictions if each.label == label), key=lambda each: -each.score)
            right = np.array([known for known in _are_right(found, objects) if known is not None], bool)
            num_right = np.cumsum(right)
            recall, precision = num_right / number, num_right / np.arange(1, len(right) + 1)
            # 1e-9, because a recall of 3 / 10 must reach the third level whatever rounding made of both.
            best = [precision[recall >= level - 1e-9].max(initial=0.0) for level in _VOC_RECALLS]
            per_category[name] = float(np.mean(best))
    mean = float(np.mean(list(per_category.values()))) if per_category else None
    return AveragePrecision(ap50=mean, per_category=per_category)


def _are_right(predictions: list[Prediction], objects: list[list[Instance]]) -> Iterator[bool | None]:
    """Whether each prediction, the surest first, is right; None if it is of a difficult object."""
    taken = set()
    for each in predictions:
        known = objects[each.image]
        overlaps = np.zeros(1)
        if known:
            overlaps = mask.iou(np.array([each.box]), np.array([one.box for one in known]), [0] * len(known))[0]
        best = int(overlaps.argmax())
        if overlaps[best] < 0.5:
            yield False
        elif known[best].difficult:
            yield None
        else:
            yield (each.image, best) not in taken
            taken.add((each.image, best))
