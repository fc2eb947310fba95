from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslight.data import BadImage, DetectionBatch, DetectionLoader, DetectionSet, measured_images, open_detection_sets
from sslight.data.detection.loader import resized_size
from tests.data.detection_files import coco_folder


@pytest.fixture
def images(tmp_path: Path) -> DetectionSet:
    return open_detection_sets(str(coco_folder(tmp_path)), train_split=[], val_split=[], masks=True)[0]


def loader(
    images: DetectionSet, *, rank: int = 0, world_size: int = 1, workers: int = 0, batch_size: int = 2
) -> DetectionLoader:
    return DetectionLoader(
        images,
        sizes=[32, 48, 64],
        longest=80,
        masks=True,
        batch_size=batch_size,
        seed=3,
        rank=rank,
        world_size=world_size,
        workers=workers,
    )


def copies(batches: Iterator[DetectionBatch]) -> list[DetectionBatch]:
    return [DetectionBatch([image.clone() for image in b.images], b.targets, b.indices) for b in batches]


def assert_same(a: list[DetectionBatch], b: list[DetectionBatch]) -> None:
    assert [each.indices.tolist() for each in a] == [each.indices.tolist() for each in b]
    for x, y in zip(a, b, strict=True):
        for first, second in zip(x.images, y.images, strict=True):
            assert torch.equal(first, second)
        for one, other in zip(x.targets, y.targets, strict=True):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("size", "shorter", "longest", "expected"),
    [((480, 640), 800, 1333, (800, 1067)), ((427, 640), 800, 1333, (800, 1199)), ((300, 900), 800, 1333, (444, 1333))],
)
def test_the_shorter_side_is_resized_unless_the_longer_would_pass_its_limit(
    size: tuple[int, int], shorter: int, longest: int, expected: tuple[int, int]
) -> None:
    assert resized_size(*size, shorter, longest) == expected
    assert resized_size(size[1], size[0], shorter, longest) == expected[::-1]


def test_batches_do_not_depend_on_workers_and_can_start_in_mid_epoch(images: DetectionSet) -> None:
    with closing(loader(images)) as one, closing(loader(images, workers=2)) as other:
        assert one.steps_per_epoch == 3
        for epoch in (0, 1):
            whole = copies(one.epoch(epoch))
            assert_same(whole, copies(other.epoch(epoch)))
            assert_same(whole[1:], copies(one.epoch(epoch, start_step=1)))


def test_two_processes_see_what_one_would_see(images: DetectionSet) -> None:
    with closing(loader(images, batch_size=2)) as one:
        whole = [b.indices.tolist() for b in one.epoch(5)]
    parts = []
    for rank in (0, 1):
        with closing(loader(images, rank=rank, world_size=2, batch_size=1)) as part:
            parts.append([b.indices.tolist() for b in part.epoch(5)])
    assert whole == [a + b for a, b in zip(*parts, strict=True)]


def test_wide_and_tall_images_are_not_mixed_in_a_batch(images: DetectionSet) -> None:
    with closing(loader(images)) as one:
        for epoch in range(3):
            seen: list[int] = []
            for batch in one.epoch(epoch):
                wide = {images.images[index].width > images.images[index].height for index in batch.indices}
                assert len(wide) == 1
                seen += batch.indices.tolist()
            assert sorted(seen) == list(range(6))


def test_boxes_lie_on_what_was_drawn(images: DetectionSet) -> None:
    with closing(loader(images)) as one:
        for batch in one.epoch(0):
            for pixels, target in zip(batch.images, batch.targets, strict=True):
                for box, label, mask in zip(target["boxes"], target["labels"], target["masks"], strict=True):
                    left, top, right, bottom = box.round().int().tolist()
                    inside = pixels[:, top + 2 : bottom - 2, left + 2 : right - 2].float().mean((1, 2))
                    channel = {"red thing": 0, "green thing": 1, "blue thing": 2}[images.categories[int(label) - 1]]
                    assert int(inside.argmax()) == channel
                    assert inside[channel] > 150 > inside.sum() - inside[channel]
                    assert mask[top + 2 : bottom - 2, left + 2 : right - 2].all()
                    assert int(mask.sum()) == pytest.approx((right - left) * (bottom - top), rel=0.25)


def test_an_image_of_another_size_than_annotated_is_replaced_and_noted(images: DetectionSet) -> None:
    Image.new("RGB", (20, 20)).save(images.images[4].file)
    with closing(loader(images, batch_size=6)) as one:
        batch = next(one.epoch(0))
        assert 4 not in batch.indices
        (found,) = one.state_dict()["found"]
        assert (found["index"], found["reason"]) == (4, "is 20 × 20 px, but annotated as 64 × 48")


def test_too_many_unreadable_images_end_the_run(images: DetectionSet) -> None:
    for image in images.images[:5]:
        image.file.write_bytes(b"nothing")
    with closing(loader(images, batch_size=6)) as one, pytest.raises(ValueError, match=r"more than max_bad_share=0.01"):
        next(one.epoch(0))


def test_a_batch_larger_than_the_set_is_refused(images: DetectionSet) -> None:
    with pytest.raises(ValueError, match="batch_size=7 is more than the 6 images of train2017 that have objects"):
        loader(images, batch_size=7)


def test_measured_images_come_in_order_and_unreadable_ones_are_left_out(images: DetectionSet) -> None:
    images.images[1].file.write_bytes(b"nothing")
    Image.open(images.images[2].file).convert("L").save(images.images[2].file)  # grey images count as any
    bad: list[BadImage] = []
    order = np.array([0, 1, 2, 5])
    batches = copies(measured_images(images, size=32, longest=80, indices=order, workers=0, bad=bad))
    assert [b.indices.tolist() for b in batches] == [[0], [2], [5]]
    assert [tuple(b.images[0].shape) for b in batches] == [(3, 32, 43), (3, 43, 32), (3, 43, 32)]
    assert [each.index for each in bad] == [1]
