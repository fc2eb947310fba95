from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from sslight.views.photometric import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    NO_JITTER,
    SATURATION,
    UInt8Array,
    augment_view,
    warm_up,
)
from tests.views import recorded
from tests.views.pillow import bias, mean_difference, photograph, pillow_jitter

NAMES = ("brightness", "contrast", "saturation", "hue")
HUE_LEVELS = 0.02  # of the 0.3 allowed: colours whose hue or saturation is a whole number may round down in Pillow


def augment(image: UInt8Array, **changes: Any) -> UInt8Array:
    target = np.empty_like(image)
    augment_view(image, target, **changes)
    return target


def jitter(image: UInt8Array, operation: int, factor: float) -> UInt8Array:
    factors = NO_JITTER.copy()
    factors[operation] = factor
    return augment(image, jitter_factors=factors)


def arguments_of(operation: dict[str, Any]) -> dict[str, Any]:
    match operation["op"]:
        case "hflip":
            return {"flip": True}
        case "grayscale":
            return {"grey": True}
        case "blur":
            return {"blur_radius": operation["radius"]}
        case "solarise":
            return {"solarise": True}
        case "jitter_chain":
            order = np.array([NAMES.index(name) for name in operation["order"]])
            factors = np.empty(4)
            factors[order] = operation["factors"]
            return {"jitter_order": order, "jitter_factors": factors}
        case name:
            factors = NO_JITTER.copy()
            factors[NAMES.index(name)] = operation["factor"]
            return {"jitter_factors": factors}


@pytest.mark.parametrize(
    "number", [i for i, operation in enumerate(recorded.OPERATIONS) if operation["op"] != "resized_crop"]
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
        result = augment(image, jitter_order=np.array(order), jitter_factors=factors)
        assert mean_difference(result, expected) <= 2 * HUE_LEVELS


def test_grey_and_flip_and_solarise_equal_pillow_together() -> None:
    image = photograph(33, 70, seed=3)
    grey = ImageOps.mirror(Image.fromarray(image)).convert("L").convert("RGB")
    expected = np.asarray(ImageOps.solarize(grey, threshold=128))
    np.testing.assert_array_equal(augment(image, flip=True, grey=True, solarise=True), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (3, 2100), (130, 31)])
def test_any_shape_works(shape: tuple[int, int]) -> None:
    # 2048 pixels are worked on at once: one row longer than that, and many rows of which 66 fit.
    image = photograph(*shape, seed=4)
    factors = np.array([0.9, 1.2, 0.8, 0.0])
    expected = image[:, ::-1]
    for operation in (BRIGHTNESS, CONTRAST, SATURATION):
        expected = pillow_jitter(np.ascontiguousarray(expected), operation, factors[operation])
    np.testing.assert_array_equal(augment(image, flip=True, jitter_factors=factors), expected)


def test_source_stays_as_it_was() -> None:
    image = photograph(20, 20, seed=5)
    before = image.copy()
    augment(image, jitter_factors=np.array([0.5, 0.5, 0.5, 0.1]), blur_radius=1.0, solarise=True)
    np.testing.assert_array_equal(image, before)


def test_warm_up_can_be_called_again() -> None:
    warm_up()
    warm_up()


def test_wrong_memory_is_refused() -> None:
    image = photograph(8, 8, seed=6)
    with pytest.raises(ValueError, match=r"target has shape \(8, 7, 3\)"):
        augment_view(image, image[:, :7].copy())
    with pytest.raises(ValueError, match="dtype float32"):
        augment_view(image.astype(np.float32), image)
    with pytest.raises(ValueError, match="source is not contiguous"):
        augment_view(image[::2, ::2], np.empty((4, 4, 3), np.uint8))
