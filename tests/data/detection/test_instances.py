from pathlib import Path

import numpy as np
import pytest
import torch

from sslight.data import AnnotatedImage, Instance, decode_mask, encode_mask
from sslight.data.detection.instances import targets_at


def image(*instances: Instance) -> AnnotatedImage:
    return AnnotatedImage(key=1, file=Path("a.jpg"), height=40, width=60, instances=instances)


def rectangle(x: float, y: float, w: float, h: float, *, label: int = 0, crowd: bool = False) -> Instance:
    polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return Instance(label, (x, y, w, h), w * h, crowd=crowd, segmentation=polygon)


def test_boxes_and_masks_follow_resizing() -> None:
    targets = targets_at(image(rectangle(10, 4, 20, 12, label=4)), 80, 120, flip=False, masks=True)
    assert targets["boxes"].tolist() == [[20.0, 8.0, 60.0, 32.0]]
    assert targets["labels"].tolist() == [5]
    expected = torch.zeros(80, 120, dtype=torch.uint8)
    expected[8:32, 20:60] = 1
    torch.testing.assert_close(targets["masks"][0], expected)


def test_boxes_and_masks_follow_the_mirror() -> None:
    targets = targets_at(image(rectangle(10, 4, 20, 12)), 40, 60, flip=True, masks=True)
    assert targets["boxes"].tolist() == [[30.0, 4.0, 50.0, 16.0]]
    rows, columns = targets["masks"][0].nonzero().unbind(1)
    assert (int(columns.min()), int(columns.max()), int(rows.min()), int(rows.max())) == (30, 49, 4, 15)


def test_run_length_masks_are_resized_like_polygons() -> None:
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[4:16, 10:30] = 1
    drawn = Instance(0, (10, 4, 20, 12), 240, segmentation=encode_mask(mask))
    for size in ((80, 120), (20, 30)):
        for flip in (False, True):
            by_polygon = targets_at(image(rectangle(10, 4, 20, 12)), *size, flip=flip, masks=True)
            by_lengths = targets_at(image(drawn), *size, flip=flip, masks=True)
            torch.testing.assert_close(by_lengths["masks"], by_polygon["masks"])
    np.testing.assert_array_equal(decode_mask(encode_mask(mask)), mask)


def test_crowds_and_empty_boxes_are_not_trained_on_and_boxes_end_at_the_edge() -> None:
    inside = rectangle(50, 30, 30, 30, label=2)
    targets = targets_at(
        image(rectangle(1, 1, 9, 9, crowd=True), rectangle(5, 5, 0, 9), rectangle(70, 5, 5, 5), inside),
        40,
        60,
        flip=False,
        masks=True,
    )
    assert targets["boxes"].tolist() == [[50.0, 30.0, 60.0, 40.0]]
    assert targets["labels"].tolist() == [3]
    assert targets["masks"].shape == (1, 40, 60)


def test_nothing_to_learn_gives_empty_targets() -> None:
    targets = targets_at(image(), 20, 30, flip=True, masks=True)
    assert [tuple(targets[name].shape) for name in ("boxes", "labels", "masks")] == [(0, 4), (0,), (0, 20, 30)]


@pytest.mark.parametrize("flip", [False, True])
def test_targets_have_the_types_that_torchvision_asks_for(flip: bool) -> None:
    targets = targets_at(image(rectangle(1, 2, 3, 4)), 40, 60, flip=flip, masks=True)
    assert {name: value.dtype for name, value in targets.items()} == {
        "boxes": torch.float32,
        "labels": torch.int64,
        "masks": torch.uint8,
    }
