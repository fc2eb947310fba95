"""Random crops: every image once an epoch, the same for any number of workers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sslight.data import CropLoader, Source, build_source, decode
from sslight.views import MultiCrop


@pytest.fixture
def source(image_folder: Callable[..., Path]) -> Source:
    return build_source([str(image_folder("images", each=11))], labeled=False)


def epoch(source: Source, number: int = 0, **changes: Any) -> list[tuple[torch.Tensor, list[int], bool]]:
    settings: dict[str, Any] = {"size": 16, "batch_size": 4, "seed": 7, "workers": 0} | changes
    crops = CropLoader(source, **settings)
    try:
        return [(b.images.clone(), b.indices.tolist(), b.ends_step) for b in crops.epoch(number)]
    finally:
        crops.close()


def images_by_index(batches: list[tuple[torch.Tensor, list[int], bool]]) -> dict[int, torch.Tensor]:
    return {index: image for images, indices, _ in batches for index, image in zip(indices, images, strict=True)}


def steps(batches: list[tuple[torch.Tensor, list[int], bool]]) -> Iterator[list[int]]:
    step: list[int] = []
    for _, indices, ends_step in batches:
        step += indices
        if ends_step:
            yield step
            step = []
    assert not step


def test_every_image_comes_once_and_the_last_batch_is_kept(source: Source) -> None:
    found = list(steps(epoch(source)))
    assert [len(step) for step in found] == [4, 4, 3]
    assert sorted(index for step in found for index in step) == list(range(11))
    assert list(steps(epoch(source, 1))) != found


def test_an_incomplete_last_batch_that_is_too_small_is_left_out(source: Source) -> None:
    assert [len(step) for step in steps(epoch(source, smallest_step=4))] == [4, 4]
    assert [len(step) for step in steps(epoch(source, smallest_step=3))] == [4, 4, 3]


def test_neither_workers_nor_parts_change_anything(source: Source) -> None:
    plain, other = epoch(source), epoch(source, workers=2, part_size=3)
    assert list(steps(plain)) == list(steps(other))
    assert [len(indices) for _, indices, _ in other] == [3, 1, 3, 1, 3]
    crops, others = images_by_index(plain), images_by_index(other)
    assert all(torch.equal(crop, others[index]) for index, crop in crops.items())


def test_a_crop_is_the_multi_crop_of_its_key_without_any_change_of_colour(source: Source) -> None:
    multi_crop = MultiCrop(
        num_global=1,
        num_local=0,
        global_size=16,
        global_scale=(0.08, 1.0),
        jitter_prob=0,
        grayscale_prob=0,
        blur_prob=(0, 0, 0),
        solarize_prob=(0, 0),
    )
    for index, crop in images_by_index(epoch(source, 3)).items():
        (expected,) = multi_crop(decode(source.read(index)), (7, 3, index))
        assert torch.equal(crop, expected)


def test_crops_differ_from_epoch_to_epoch_and_seed_to_seed(source: Source) -> None:
    first = images_by_index(epoch(source))
    for other in (images_by_index(epoch(source, 1)), images_by_index(epoch(source, seed=8))):
        assert any(not torch.equal(crop, other[index]) for index, crop in first.items())


def test_unreadable_images_are_left_out_up_to_the_accepted_share(source: Source, tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / "images" / f"{number:03}.jpg").write_bytes(b"no picture")
    found = epoch(source, max_bad_share=0.5)
    assert sorted(images_by_index(found)) == list(range(5, 11))
    assert sum(ends for _, _, ends in found) == 3
    with pytest.raises(ValueError, match=r"more than data\.max_bad_share=0\.01 allows"):
        epoch(source)
