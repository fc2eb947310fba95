"""Average precision against pycocotools, and on cases whose value is known."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sslight.data import AnnotatedImage, DetectionSet, Instance, encode_mask
from sslight.evaluate.detection.average_precision import Prediction, coco_average_precision, voc_average_precision
from sslight.evaluate.detection.measure import write_predictions

HEIGHT, WIDTH = 150, 200


def drawn(box: tuple[float, float, float, float]) -> dict[str, Any]:
    """A mask of the pixels inside a box."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    x, y, w, h = (round(number) for number in box)
    mask[y : y + h, x : x + w] = 1
    return encode_mask(mask)


def random_set(seed: int, *, crowds: bool = True) -> DetectionSet:
    """Images with objects of all sizes and three of four categories; some images have none."""
    rng = np.random.default_rng(seed)
    images = []
    for index in range(12):
        instances = []
        for _ in range(int(rng.integers(0, 7))):
            w, h = rng.uniform(3, 120, 2)
            box = (float(rng.uniform(0, WIDTH - w)), float(rng.uniform(0, HEIGHT - h)), float(w), float(h))
            crowd = crowds and rng.random() < 0.15
            area = float(w * h * rng.uniform(0.5, 1))
            instances.append(Instance(int(rng.integers(0, 3)), box, area, crowd=bool(crowd), segmentation=drawn(box)))
        images.append(AnnotatedImage(1000 + index, Path(f"{index}.jpg"), HEIGHT, WIDTH, tuple(instances)))
    return DetectionSet(
        kind="coco", split="val", categories=("a", "b", "c", "never"), category_keys=(2, 4, 5, 9), images=tuple(images)
    )


def perfect(images: DetectionSet) -> list[Prediction]:
    return [
        Prediction(index, each.label, each.box, 0.9, each.segmentation)  # type: ignore[arg-type]
        for index, image in enumerate(images.images)
        for each in image.instances
        if not each.crowd
    ]


def rough(images: DetectionSet, seed: int) -> list[Prediction]:
    """Some objects found, more or less in place, sometimes as another category, and some inventions."""
    rng = np.random.default_rng(seed)
    found = []
    for index, image in enumerate(images.images):
        boxes = [(each.box, each.label) for each in image.instances if rng.random() < 0.8]
        boxes += [((5.0, 6.0, 30.0, 40.0), int(rng.integers(0, 4))) for _ in range(2)]
        for (x, y, w, h), label in boxes:
            shift = rng.normal(0, 0.06, 4)
            box = (max(0.0, x + shift[0] * w), max(0.0, y + shift[1] * h), w * (1 + shift[2]), h * (1 + shift[3]))
            label = label if rng.random() < 0.85 else int(rng.integers(0, 4))
            box = (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
            found.append(Prediction(index, label, box, round(float(rng.random()), 2), drawn(box)))
    return found


def annotation_file(images: DetectionSet) -> dict[str, Any]:
    """The set in COCO's format."""
    annotations: list[dict[str, Any]] = []
    for image in images.images:
        for each in image.instances:
            assert isinstance(each.segmentation, dict)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image.key,
                    "category_id": images.category_keys[each.label],
                    "bbox": list(each.box),
                    "area": each.area,
                    "iscrowd": int(each.crowd),
                    "segmentation": {"size": [HEIGHT, WIDTH], "counts": each.segmentation["counts"].decode()},
                }
            )
    return {
        "images": [{"id": image.key, "height": image.height, "width": image.width} for image in images.images],
        "annotations": annotations,
        "categories": [
            {"id": key, "name": name} for key, name in zip(images.category_keys, images.categories, strict=True)
        ],
    }


def by_pycocotools(truth: dict[str, Any], results: list[dict[str, Any]], kind: str) -> list[float]:
    """The first six figures of the original evaluation."""
    # As its users do: with boxes left in, the area of a predicted mask would be that of its box.
    results = [
        {k: v for k, v in each.items() if k != {"bbox": "segmentation", "segm": "bbox"}[kind]} for each in results
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats[:6]]


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_figures_are_those_of_pycocotools_on_the_written_predictions(seed: int, masks: bool, tmp_path: Path) -> None:
    images = random_set(seed)
    predictions = rough(images, seed)
    write_predictions(tmp_path / "predictions.json", images, predictions)
    results = json.loads((tmp_path / "predictions.json").read_text())
    expected = by_pycocotools(annotation_file(images), results, "segm" if masks else "bbox")
    found = coco_average_precision(images, predictions, masks=masks)
    ours = [found.ap, found.ap50, found.ap75, found.small, found.medium, found.large]
    assert [-1 if value is None else value for value in ours] == pytest.approx(expected, abs=1e-6)
    assert 0.02 < expected[0] < 0.9


@pytest.mark.parametrize("masks", [False, True])
def test_perfect_predictions_score_1_none_score_0_and_wrong_categories_nearly_0(masks: bool) -> None:
    images = random_set(1)
    right = perfect(images)
    best = coco_average_precision(images, right, masks=masks)
    assert (best.ap, best.ap50, best.ap75) == pytest.approx((1, 1, 1))
    assert best.per_category == pytest.approx({"a": 1, "b": 1, "c": 1})
    nothing = coco_average_precision(images, [], masks=masks)
    assert (nothing.ap, nothing.ap50, nothing.ap75) == (0, 0, 0)
    shuffled = coco_average_precision(
        images, [replace(each, label=(each.label + 1) % 3) for each in right], masks=masks
    )
    assert shuffled.ap is not None
    assert shuffled.ap < 0.05


def one_image(*instances: Instance, others: int = 0) -> DetectionSet:
    images = [AnnotatedImage(1, Path("1.jpg"), HEIGHT, WIDTH, instances)]
    images += [AnnotatedImage(2 + i, Path(f"{2 + i}.jpg"), HEIGHT, WIDTH, ()) for i in range(others)]
    return DetectionSet(kind="voc", split="val", categories=("a", "b"), category_keys=(1, 2), images=tuple(images))


def test_predictions_in_a_crowd_are_neither_right_nor_wrong() -> None:
    crowd = Instance(0, (0.0, 0.0, 100.0, 100.0), 10_000.0, crowd=True)
    thing = Instance(0, (120.0, 20.0, 40.0, 40.0), 1600.0)
    images = one_image(crowd, thing)
    inside = [Prediction(0, 0, (10.0 * i, 5.0, 20.0, 20.0), 0.95) for i in range(5)]
    found = [Prediction(0, 0, thing.box, 0.5)]
    assert coco_average_precision(images, inside + found).ap == pytest.approx(1)
    outside = [Prediction(0, 0, (100.0, 110.0, 20.0, 20.0), 0.95)]
    assert coco_average_precision(images, outside + found).ap == pytest.approx(0.5)


def test_a_prediction_in_an_image_without_that_category_is_wrong() -> None:
    thing = Instance(0, (20.0, 20.0, 40.0, 40.0), 1600.0)
    images = one_image(thing, others=2)
    found = [Prediction(0, 0, thing.box, 0.5)]
    for function in (coco_average_precision, voc_average_precision):
        assert function(images, found).ap50 == pytest.approx(1)
        wrong = [Prediction(2, 0, thing.box, 0.9)]
        assert function(images, found + wrong).ap50 == pytest.approx(0.5)
        # A category that no image has does not count at all.
        assert function(images, [*found, Prediction(1, 1, thing.box, 0.9)]).ap50 == pytest.approx(1)
        assert function(images, found).per_category == pytest.approx({"a": 1})


def test_sizes_without_objects_have_no_figure() -> None:
    thing = Instance(0, (20.0, 20.0, 40.0, 40.0), 1600.0)
    found = coco_average_precision(one_image(thing), [Prediction(0, 0, thing.box, 0.5)])
    assert found.small is None
    assert found.medium == pytest.approx(1)
    assert found.large is None


def test_voc_figures_follow_the_eleven_recalls() -> None:
    boxes = [(10.0 + 30 * i, 10.0, 20.0, 20.0) for i in range(5)]
    images = one_image(*(Instance(0, box, 400.0) for box in boxes))
    right = [Prediction(0, 0, box, score) for box, score in zip(boxes, (0.9, 0.7, 0.5, 0.3, 0.1), strict=True)]
    assert voc_average_precision(images, right).ap50 == pytest.approx(1)
    assert voc_average_precision(images, []).ap50 == 0
    # Three of five found: recall 0.6 is reached with precision 1, so 7 of 11 levels are.
    assert voc_average_precision(images, right[:3]).ap50 == pytest.approx(7 / 11)
    # The same with a wrong one after the first: precision 1 up to recall 0.2, then 3 of 4.
    wrong = Prediction(0, 0, (0.0, 100.0, 20.0, 20.0), 0.8)
    assert voc_average_precision(images, [*right[:3], wrong]).ap50 == pytest.approx((3 * 1 + 4 * 3 / 4) / 11)


def test_voc_counts_an_object_once_and_overlaps_from_a_half_on() -> None:
    thing = Instance(0, (20.0, 20.0, 40.0, 40.0), 1600.0)
    images = one_image(thing, Instance(0, (100.0, 20.0, 40.0, 40.0), 1600.0))
    twice = [Prediction(0, 0, thing.box, 0.9), Prediction(0, 0, thing.box, 0.8)]
    other = Prediction(0, 0, (100.0, 20.0, 40.0, 40.0), 0.7)
    # The second find is wrong: precision 1 up to recall 0.5, then 2 of 3.
    assert voc_average_precision(images, [*twice, other]).ap50 == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    half = Prediction(0, 0, (20.0, 20.0, 40.0, 20.0), 0.9)
    less = Prediction(0, 0, (20.0, 20.0, 40.0, 19.0), 0.9)
    assert voc_average_precision(one_image(thing), [half]).ap50 == pytest.approx(1)
    assert voc_average_precision(one_image(thing), [less]).ap50 == 0


def test_voc_difficult_objects_neither_count_nor_make_a_find_wrong() -> None:
    thing = Instance(0, (20.0, 20.0, 40.0, 40.0), 1600.0)
    hard = Instance(0, (100.0, 20.0, 40.0, 40.0), 1600.0, difficult=True)
    found = [Prediction(0, 0, hard.box, 0.9), Prediction(0, 0, thing.box, 0.8)]
    assert voc_average_precision(one_image(thing, hard), found).ap50 == pytest.approx(1)
    assert voc_average_precision(one_image(thing, hard), found[1:]).ap50 == pytest.approx(1)
    assert voc_average_precision(one_image(hard), found).ap50 is None
