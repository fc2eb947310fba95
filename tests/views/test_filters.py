import numpy as np
import pytest

from sslight.views.filters import blur, resize_boxes
from tests.views import recorded
from tests.views.pillow import Pixels, mean_difference, photograph, pillow_blur, pillow_crop

RESIZE_LEVELS = 0.005  # of the 0.05 allowed: float32 and Pillow's 22-bit weights part at ties only

Box = tuple[int, int, int, int]


def resized(image: Pixels, box: Box, size: tuple[int, int], flip: bool = False) -> Pixels:
    planes: Pixels = np.empty((1, 3, *size), np.uint8)
    resize_boxes(image, np.array([box]), np.array([flip]), planes, planes[1:])
    result: Pixels = planes[0].transpose(1, 2, 0)
    return result


def random_box(height: int, width: int, share: float, seed: int) -> Box:
    rng = np.random.default_rng(seed)
    box_height, box_width = (max(1, round(side * share * rng.uniform(0.8, 1.2))) for side in (height, width))
    box_height, box_width = min(box_height, height), min(box_width, width)
    top, left = rng.integers(height - box_height + 1), rng.integers(width - box_width + 1)
    return int(top), int(left), box_height, box_width


@pytest.mark.parametrize("number", [0, 1])
def test_resized_crop_gives_the_recorded_pixels(number: int) -> None:
    operation = recorded.OPERATIONS[number]
    box = (operation["top"], operation["left"], operation["height"], operation["width"])
    result = resized(recorded.pixels("in.image"), box, (operation["size"], operation["size"]))
    expected = recorded.pixels(f"out.{number}")
    assert mean_difference(result, expected) <= RESIZE_LEVELS
    assert np.abs(result.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (61, 1203)])
@pytest.mark.parametrize(("size", "share"), [(224, 0.9), (224, 0.5), (128, 0.4), (96, 0.25), (100, 0.7), (36, 0.1)])
def test_resizing_a_box_equals_pillow(height: int, width: int, size: int, share: float) -> None:
    for seed in range(3):
        image = photograph(height, width, seed)
        box = random_box(height, width, share, seed)
        assert mean_difference(resized(image, box, (size, size)), pillow_crop(image, box, size)) <= RESIZE_LEVELS


@pytest.mark.parametrize("shape", [(1, 1), (1, 20), (20, 1), (5, 3), (15, 6), (16, 5), (17, 16), (3, 300)])
def test_tiny_images_are_enlarged_like_pillow(shape: tuple[int, int]) -> None:
    image = photograph(*shape, seed=0)
    result = resized(image, (0, 0, *shape), (32, 32))
    assert mean_difference(result, pillow_crop(image, (0, 0, *shape), 32)) <= RESIZE_LEVELS


def test_large_photographs_are_shrunk_like_pillow() -> None:
    image = photograph(1500, 2000, seed=0)
    assert mean_difference(
        resized(image, (3, 5, 1490, 1990), (64, 64)), pillow_crop(image, (3, 5, 1490, 1990), 64)
    ) <= (RESIZE_LEVELS)


def test_boxes_in_an_image_of_many_bands_equal_pillow_and_each_other_alone() -> None:
    image = photograph(700, 6000, seed=0)  # 64 rows are more than is turned round at a time
    boxes = [
        (0, 0, 700, 6000),
        (63, 5, 66, 80),
        (64, 5990, 64, 10),
        (600, 3000, 100, 900),
        (5, 17, 690, 30),
        (699, 0, 1, 16),
    ]
    flips = [False, True, False, True, True, False]
    first, others = np.empty((2, 3, 64, 64), np.uint8), np.empty((4, 3, 48, 48), np.uint8)
    resize_boxes(image, np.array(boxes), np.array(flips), first, others)
    for box, flip, planes in zip(boxes, flips, [*first, *others], strict=True):
        size = planes.shape[1]
        assert np.array_equal(planes.transpose(1, 2, 0), resized(image, box, (size, size), flip))
        mirrored = planes[:, :, ::-1] if flip else planes
        assert mean_difference(mirrored.transpose(1, 2, 0), pillow_crop(image, box, size)) <= RESIZE_LEVELS


def test_extreme_pixels_are_clipped_between_the_passes_as_in_pillow() -> None:
    checks = np.kron(np.indices((9, 11)).sum(0) % 2, np.ones((5, 5)))[..., None].repeat(3, axis=2)
    image = (255 * checks).astype(np.uint8)
    np.testing.assert_array_equal(resized(image, (2, 3, 40, 50), (64, 64)), pillow_crop(image, (2, 3, 40, 50), 64))


def test_a_flipped_view_is_the_mirror_image() -> None:
    image = photograph(70, 90, seed=1)
    plain = resized(image, (4, 7, 50, 60), (40, 30))
    np.testing.assert_array_equal(resized(image, (4, 7, 50, 60), (40, 30), flip=True), plain[:, ::-1])


def blurred(image: Pixels, radius: float) -> Pixels:
    planes: Pixels = np.ascontiguousarray(image.transpose(2, 0, 1))[None]
    blur(planes, np.array([radius]))
    result: Pixels = planes[0].transpose(1, 2, 0)
    return result


def test_blur_equals_pillow_at_random_radii() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 50, 3), dtype=np.uint8)
    differences = [
        mean_difference(blurred(noise, radius), pillow_blur(noise, radius))
        for radius in rng.uniform(0.1, 2.0, 200).tolist()
    ]
    assert np.mean(differences) <= 0.005
    assert max(differences) <= 0.1


# At such radii exact ties are common, where Pillow's integers and float32 may round to different sides.
@pytest.mark.parametrize("radius", [0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2**0.5, 1.75, 2.0, 3.0, 5.0, 9.5])
def test_blur_stays_near_pillow_at_round_radii(radius: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 50, 3), dtype=np.uint8)
    assert mean_difference(blurred(noise, radius), pillow_blur(noise, radius)) <= 0.15


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3), (3, 40)])
def test_images_smaller_than_the_filter_repeat_their_border(shape: tuple[int, int]) -> None:
    image = photograph(*shape, seed=0)
    for radius in (0.6, 1.7, 4.0):
        assert np.abs(blurred(image, radius).astype(int) - pillow_blur(image, radius)).max() <= 1


def test_a_flat_image_stays_flat() -> None:
    for level in range(256):
        image = np.full((5, 6, 3), level, np.uint8)
        np.testing.assert_array_equal(blurred(image, 1.3), image)
        np.testing.assert_array_equal(resized(image, (1, 1, 4, 5), (9, 3)), np.full((9, 3, 3), level))


def test_each_view_has_its_own_radius() -> None:
    image = photograph(33, 47, seed=2)
    planes = np.ascontiguousarray(np.stack([image.transpose(2, 0, 1)] * 3))
    radii = np.array([0.0, 0.7, 1.9])
    blur(planes, radii)
    np.testing.assert_array_equal(planes[0].transpose(1, 2, 0), image)
    for v in (1, 2):
        np.testing.assert_array_equal(planes[v].transpose(1, 2, 0), blurred(image, radii[v]))
