from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from sslight.views.compiled import UInt8Array
from sslight.views.filters import blur
from sslight.views.photometric import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    NO_JITTER,
    SATURATION,
    interleave,
    recolor,
)
from tests.views import recorded
from tests.views.pillow import bias, mean_difference, photograph, pillow_jitter

NAMES = ("brightness", "contrast", "saturation", "hue")
HUE_LEVELS = 0.02  # of the 0.3 allowed: colours whose hue or saturation is a whole number may round down in Pillow


def augment(
    image: UInt8Array,
    *,
    jitter_order: Sequence[int] = (0, 1, 2, 3),
    jitter_factors: npt.NDArray[np.float64] = NO_JITTER,
    gray: bool = False,
    blur_sigma: float = 0.0,
    solarize: bool = False,
) -> UInt8Array:
    """One image as the only view."""
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))[None]
    flat = planes.reshape(1, 3, -1)
    recolor(flat, np.array([jitter_order]), jitter_factors[None], np.array([gray]))
    blur(planes, np.array([blur_sigma]))
    result = np.empty_like(image, order="C")
    interleave(flat[0], solarize, result)
    return result


def jitter(image: UInt8Array, operation: int, factor: float) -> UInt8Array:
    factors = NO_JITTER.copy()
    factors[operation] = factor
    return augment(image, jitter_factors=factors)


def arguments_of(operation: dict[str, Any]) -> dict[str, Any]:
    match operation["op"]:
        case "grayscale":
            return {"gray": True}
        case "blur":
            return {"blur_sigma": operation["radius"]}
        case "solarise":
            return {"solarize": True}
        case "jitter_chain":
            order = [NAMES.index(name) for name in operation["order"]]
            factors = np.empty(4)
            factors[order] = operation["factors"]
            return {"jitter_order": order, "jitter_factors": factors}
        case name:
            factors = NO_JITTER.copy()
            factors[NAMES.index(name)] = operation["factor"]
            return {"jitter_factors": factors}


@pytest.mark.parametrize(
    "number", [i for i, operation in enumerate(recorded.OPERATIONS) if operation["op"] not in {"resized_crop", "hflip"}]
)
def test_operation_gives_the_recorded_pixels(number: int) -> None:
    operation = recorded.OPERATIONS[number]
    result = augment(recorded.pixels("in.image"), **arguments_of(operation))
    expected = recorded.pixels(f"out.{number}")
    if operation["op"] in {"hue", "jitter_chain"}:
        assert mean_difference(result, expected) <= HUE_LEVELS
    else:
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("operation", [BRIGHTNESS, CONTRAST, SATURATION])
def test_brightness_contrast_and_saturation_equal_pillow(operation: int) -> None:
    for seed, factor in enumerate([0.0, 0.2, 0.61, 0.7, 0.83, 0.999, 1.0, 1.001, 1.17, 1.25, 1.4, 1.8]):
        image = photograph(61, 83, seed)
        np.testing.assert_array_equal(jitter(image, operation, factor), pillow_jitter(image, operation, factor))


@pytest.mark.parametrize("factor", [-0.5, -0.2, -0.1, -0.03, 1e-9, 0.004, 0.05, 0.1, 0.2, 0.5])
def test_hue_equals_pillow_up_to_rounding(factor: float) -> None:
    image = photograph(96, 128, seed=1)
    result, expected = jitter(image, HUE, factor), pillow_jitter(image, HUE, factor)
    assert mean_difference(result, expected) <= HUE_LEVELS
    assert abs(bias(result, expected)) <= HUE_LEVELS


def test_hue_is_right_for_every_kind_of_colour() -> None:
    levels = np.array([0, 1, 2, 3, 42, 84, 85, 127, 128, 170, 200, 252, 253, 254, 255], np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(225, 15, 3)
    for factor in (-0.31, 1e-9, 0.1, 0.45):
        assert mean_difference(jitter(cube, HUE, factor), pillow_jitter(cube, HUE, factor)) <= 0.1


def test_jitter_runs_in_the_given_order_wherever_contrast_stands() -> None:
    image = photograph(64, 48, seed=2)
    factors = np.array([0.8, 1.3, 1.2, 0.07])
    for order in ([1, 0, 2, 3], [3, 1, 2, 0], [2, 0, 1, 3], [0, 3, 2, 1]):
        expected = image
        for operation in order:
            expected = pillow_jitter(expected, operation, factors[operation])
        result = augment(image, jitter_order=order, jitter_factors=factors)
        assert mean_difference(result, expected) <= 2 * HUE_LEVELS


def test_grey_and_solarise_equal_pillow_together() -> None:
    image = photograph(33, 70, seed=3)
    gray = Image.fromarray(image).convert("L").convert("RGB")
    expected = np.asarray(ImageOps.solarize(gray, threshold=128))
    np.testing.assert_array_equal(augment(image, gray=True, solarize=True), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (3, 2100), (130, 31)])
def test_any_shape_works(shape: tuple[int, int]) -> None:
    # 2048 pixels are worked on at once.
    image = photograph(*shape, seed=4)
    factors = np.array([0.9, 1.2, 0.8, 0.0])
    expected = image
    for operation in (BRIGHTNESS, CONTRAST, SATURATION):
        expected = pillow_jitter(np.ascontiguousarray(expected), operation, factors[operation])
    np.testing.assert_array_equal(augment(image, jitter_factors=factors), expected)


def test_each_view_has_its_own_parameters() -> None:
    images = [photograph(20, 30, seed) for seed in range(4)]
    factors = np.array([[0.8, 1.1, 1.2, 0.1], NO_JITTER, [1.0, 1.3, 1.0, 0.0], NO_JITTER])
    orders = np.array([[3, 0, 1, 2], [0, 1, 2, 3], [1, 0, 2, 3], [0, 1, 2, 3]])
    gray = np.array([False, True, True, False])
    planes = np.stack([image.transpose(2, 0, 1).reshape(3, -1) for image in images])
    recolor(planes, orders, factors, gray)
    for v, image in enumerate(images):
        alone = augment(image, jitter_order=orders[v].tolist(), jitter_factors=factors[v], gray=bool(gray[v]))
        np.testing.assert_array_equal(planes[v].reshape(3, 20, 30).transpose(1, 2, 0), alone)
    np.testing.assert_array_equal(planes[3].reshape(3, 20, 30).transpose(1, 2, 0), images[3])
