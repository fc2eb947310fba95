import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from sslight.views.geometry import UNIFORMS_PER_BOX, resize_crop, sample_boxes
from tests.views import recorded
from tests.views.pillow import Pixels, mean_difference, photograph, pillow_crop

RATIO = (3 / 4, 4 / 3)


def draw(height: int, width: int, scale: tuple[float, float], num: int, seed: int = 0) -> npt.NDArray[np.int64]:
    uniforms = np.random.default_rng(seed).random((num, UNIFORMS_PER_BOX))
    low, high = np.array(scale[0]), np.array(scale[1])
    return sample_boxes(height, width, uniforms, scale_low=low, scale_high=high, aspect_ratio=RATIO)


def resized(image: Pixels, box: tuple[int, int, int, int], size: int) -> Pixels:
    pixels: Pixels = resize_crop(torch.from_numpy(image).permute(2, 0, 1), box, size).permute(1, 2, 0).numpy()
    return pixels


# 375 × 500 px is the usual photograph; in a strip of 100 × 1000 most tries fail and the centre is taken.
@pytest.mark.parametrize(("height", "width"), [(375, 500), (100, 1000), (64, 64)])
@pytest.mark.parametrize("scale", [(0.3, 1.0), (0.05, 0.14)])
@pytest.mark.parametrize("num", [4_000, pytest.param(40_000, marks=pytest.mark.slow)])
def test_boxes_have_the_distribution_of_torchvision(
    height: int, width: int, scale: tuple[float, float], num: int
) -> None:
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    expected = np.array([RandomResizedCrop.get_params(image, list(scale), list(RATIO)) for _ in range(num)])
    boxes = draw(height, width, scale, num)
    ours, theirs = (
        {
            "top": b[:, 0],
            "left": b[:, 1],
            "height": b[:, 2],
            "width": b[:, 3],
            "area": b[:, 2] * b[:, 3],
            "ratio": b[:, 3] / b[:, 2],
            "bottom": b[:, 0] + b[:, 2],
        }
        for b in (boxes, expected)
    )
    for name, values in ours.items():
        assert stats.ks_2samp(values, theirs[name]).pvalue > 1e-3, name


def test_boxes_lie_inside_every_image() -> None:
    for height, width in [(1, 1), (1, 50), (50, 1), (2, 3), (375, 500), (7, 1000)]:
        top, left, box_height, box_width = draw(height, width, (0.05, 1.0), 500).T
        assert (top >= 0).all()
        assert (left >= 0).all()
        assert (box_height >= 1).all()
        assert (box_width >= 1).all()
        assert (top + box_height <= height).all()
        assert (left + box_width <= width).all()


def test_images_without_room_give_the_centre_with_the_nearest_ratio() -> None:
    assert draw(100, 1000, (1.0, 1.0), 3).tolist() == [[0, 433, 100, 133]] * 3
    assert draw(1000, 100, (1.0, 1.0), 3).tolist() == [[433, 0, 133, 100]] * 3


def test_each_box_follows_its_own_scale() -> None:
    uniforms = np.random.default_rng(0).random((2000, 2, UNIFORMS_PER_BOX))
    low, high = np.array([0.5, 0.05]), np.array([0.6, 0.1])
    boxes = sample_boxes(400, 400, uniforms, scale_low=low, scale_high=high, aspect_ratio=RATIO)
    share = boxes[..., 2] * boxes[..., 3] / 400**2
    assert boxes.shape == (2000, 2, 4)
    assert (np.abs(share[:, 0] - 0.55) <= 0.06).all()
    assert (np.abs(share[:, 1] - 0.075) <= 0.03).all()


@pytest.mark.parametrize("number", [0, 1])
def test_resized_crop_gives_the_recorded_pixels(number: int) -> None:
    operation = recorded.OPERATIONS[number]
    box = (operation["top"], operation["left"], operation["height"], operation["width"])
    result = resized(recorded.pixels("in.image"), box, operation["size"])
    expected = recorded.pixels(f"out.{number}")
    assert mean_difference(result, expected) <= 0.05
    assert np.abs(result.astype(int) - expected).max() <= 1


def test_resizing_is_within_a_twentieth_of_a_level_of_pillow() -> None:
    differences = []
    for seed in range(12):
        image = photograph(375, 500, seed)
        for size, scale in ((224, (0.14, 1.0)), (128, (0.05, 0.3)), (96, (0.05, 0.14))):
            top, left, height, width = draw(375, 500, scale, 1, seed)[0].tolist()
            box = (top, left, height, width)
            differences.append(mean_difference(resized(image, box, size), pillow_crop(image, box, size)))
    assert max(differences) <= 0.02  # 0.05 is what the views have to keep


@pytest.mark.parametrize("shape", [(1, 1), (1, 20), (20, 1), (5, 3)])
def test_tiny_images_are_enlarged_like_pillow(shape: tuple[int, int]) -> None:
    image = photograph(*shape, seed=0)
    result = resized(image, (0, 0, *shape), 32)
    assert mean_difference(result, pillow_crop(image, (0, 0, *shape), 32)) <= 0.1


def test_result_is_channels_last_whatever_the_memory_of_the_image() -> None:
    planar = torch.from_numpy(photograph(40, 50, seed=0)).permute(2, 0, 1).contiguous()
    interleaved = planar.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    for box in [(3, 4, 20, 30), (0, 0, 40, 50), (5, 5, 1, 1)]:
        views = [resize_crop(image, box, 16) for image in (planar, interleaved)]
        assert all(view.permute(1, 2, 0).is_contiguous() for view in views)
        torch.testing.assert_close(views[0], views[1], atol=0, rtol=0)
