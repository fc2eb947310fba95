import numpy as np
import pytest

from sslight.views.blur import blur
from tests.views.pillow import Pixels, mean_difference, photograph, pillow_blur


def blurred(image: Pixels, radius: float) -> Pixels:
    result = image.copy()
    blur(result, radius)
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
