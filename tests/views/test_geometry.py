import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from sslight.views.geometry import UNIFORMS_PER_BOX, sample_boxes

RATIO = (3 / 4, 4 / 3)


def draw(height: int, width: int, scale: tuple[float, float], num: int, seed: int = 0) -> npt.NDArray[np.int64]:
    uniforms = np.random.default_rng(seed).random((num, UNIFORMS_PER_BOX))
    low, high = np.full(num, scale[0]), np.full(num, scale[1])
    return sample_boxes(height, width, uniforms, low, high, RATIO)


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
    uniforms = np.random.default_rng(0).random((2000, UNIFORMS_PER_BOX))
    low, high = np.tile([0.5, 0.05], 1000), np.tile([0.6, 0.1], 1000)
    boxes = sample_boxes(400, 400, uniforms, low, high, RATIO)
    share = boxes[:, 2] * boxes[:, 3] / 400**2
    assert (np.abs(share[0::2] - 0.55) <= 0.06).all()
    assert (np.abs(share[1::2] - 0.075) <= 0.03).all()
