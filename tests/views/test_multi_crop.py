import math
import pickle
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslight.config import ViewSettings, load_recipe
from sslight.views import MultiCrop, ViewParameters, build_multi_crop, warm_up
from tests.views.pillow import bias, mean_difference, photograph, pillow_view

SMALL = MultiCrop(num_local=3, global_size=32, local_size=16)
IMAGE = photograph(48, 60, seed=0).transpose(2, 0, 1)


def same(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def equal(a: ViewParameters, b: ViewParameters) -> bool:
    return all(np.array_equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(ViewParameters))


def test_views_are_uint8_channels_last_and_global_ones_come_first() -> None:
    views = SMALL(IMAGE, key=(0, 0, 0))
    assert [tuple(view.shape) for view in views] == [(3, 32, 32)] * 2 + [(3, 16, 16)] * 3
    assert all(view.dtype == torch.uint8 and view.permute(1, 2, 0).is_contiguous() for view in views)


def test_views_are_the_same_for_the_same_key() -> None:
    first = SMALL(IMAGE, key=(1, 2, 3))
    SMALL(IMAGE, key=(9,))
    assert same(first, SMALL(IMAGE, key=(1, 2, 3)))
    assert same(first, SMALL(IMAGE, key=np.array([1, 2, 3])))  # type: ignore[arg-type]


def test_every_part_of_the_key_changes_the_views() -> None:
    keys = [(0,), (0, 0), (0, 0, 0), (0, 0, 0, 0), (1,), (0, 1), (0, 0, 1), (0, 0, 0, 1), (2**64 - 1, 0, 0)]
    boxes = {SMALL.draw(375, 500, key).boxes.tobytes() for key in keys}
    assert len(boxes) == len(keys)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4), min_size=2, max_size=2, unique_by=tuple))
def test_different_keys_give_different_numbers(keys: list[list[int]]) -> None:
    first, second = (SMALL.draw(375, 500, key) for key in keys)
    assert not np.array_equal(first.jitter_factors, second.jitter_factors)


def test_neighbouring_keys_are_uncorrelated() -> None:
    draws = np.array([SMALL.draw(375, 500, (0, 0, i)).jitter_factors[:, 0] for i in range(2000)])
    next_image = np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]
    next_view = np.corrcoef(draws[:, :-1].ravel(), draws[:, 1:].ravel())[0, 1]
    assert abs(next_image) < 0.04
    assert abs(next_view) < 0.04


def test_random_numbers_do_not_depend_on_the_size_of_views() -> None:
    other = MultiCrop(num_local=3, global_size=24, local_size=20)
    assert equal(SMALL.draw(100, 100, (5,)), other.draw(100, 100, (5,)))


def test_a_pickled_copy_makes_the_same_views() -> None:
    copy = pickle.loads(pickle.dumps(SMALL))
    assert same(SMALL(IMAGE, key=(4,)), copy(IMAGE, key=(4,)))


def test_whole_chain_is_within_half_a_level_of_pillow() -> None:
    multi_crop = MultiCrop.from_recipe("dino_cnn_sslight")
    differences, biases = [], []
    for i in range(20):
        image = photograph(240, 320, seed=i)
        parameters = multi_crop.draw(240, 320, key=(0, 0, i))
        for v, view in enumerate(multi_crop.apply(image.transpose(2, 0, 1), parameters)):
            result = view.permute(1, 2, 0).numpy()
            expected = pillow_view(image, parameters, v, result.shape[0])
            differences.append(mean_difference(result, expected))
            biases.append(bias(result, expected))
    assert np.mean(differences) <= 0.1
    assert max(differences) <= 0.5
    assert abs(np.mean(biases)) <= 0.02


def test_memory_of_the_image_does_not_matter() -> None:
    expected = SMALL(IMAGE, key=(7,))
    read_only = IMAGE.copy()
    read_only.flags.writeable = False
    mirrored_twice = IMAGE[:, ::-1].copy()[:, ::-1]
    wider = np.concatenate([IMAGE, IMAGE], axis=2)[:, :, :60]
    tensor = torch.from_numpy(IMAGE.copy())
    strided = torch.from_numpy(IMAGE.repeat(2, axis=2))[:, :, ::2]
    for image in (np.ascontiguousarray(IMAGE), read_only, mirrored_twice, wider, tensor, strided):
        assert same(SMALL(image, key=(7,)), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (3, 500), (8, 8)])
def test_tiny_and_narrow_images_give_views(shape: tuple[int, int]) -> None:
    image = photograph(*shape, seed=0)
    parameters = SMALL.draw(*shape, key=(3,))
    for v, view in enumerate(SMALL.apply(image.transpose(2, 0, 1), parameters)):
        expected = pillow_view(image, parameters, v, view.shape[1])
        assert mean_difference(view.permute(1, 2, 0).numpy(), expected) <= 0.6


def test_views_go_into_the_memory_of_a_batch() -> None:
    parameters = SMALL.draw(48, 60, key=(1,))
    batch_globals = np.zeros((2, 4, 32, 32, 3), np.uint8)
    batch_locals = np.zeros((3, 4, 16, 16, 3), np.uint8)
    SMALL.apply_into(IMAGE, parameters, batch_globals[:, 1], batch_locals[:, 1])
    expected = [view.permute(1, 2, 0).numpy() for view in SMALL(IMAGE, key=(1,))]
    np.testing.assert_array_equal(batch_globals[:, 1], expected[:2])
    np.testing.assert_array_equal(batch_locals[:, 1], expected[2:])
    assert not batch_globals[:, [0, 2, 3]].any()


def test_global_views_alone_need_no_local_memory() -> None:
    multi_crop = MultiCrop(num_local=0, global_size=16)
    out_globals = np.zeros((2, 16, 16, 3), np.uint8)
    multi_crop.apply_into(IMAGE, multi_crop.draw(48, 60, key=(1,)), out_globals, None)
    assert out_globals.any()
    assert len(multi_crop(IMAGE, key=(1,))) == multi_crop.num_views == 2


def test_probabilities_of_one_and_nought_are_certain() -> None:
    always = MultiCrop(
        num_global=3, flip_prob=1, jitter_prob=1, grayscale_prob=1, blur_prob=(0, 1, 0), solarize_prob=(1, 0)
    )
    parameters = always.draw(50, 50, key=(0,))
    assert parameters.flip.all()
    assert parameters.jitter.all()
    assert parameters.gray.all()
    assert (parameters.blur_sigma > 0).tolist() == [False, True, True] + [False] * 6
    assert parameters.solarize.tolist() == [True] + [False] * 8


def test_strength_nought_leaves_an_operation_out() -> None:
    plain = MultiCrop(jitter=(0, 0, 0, 0), jitter_prob=1, grayscale_prob=0, flip_prob=0, blur_prob=(0, 0, 0))
    parameters = plain.draw(50, 50, key=(0,))
    np.testing.assert_array_equal(parameters.jitter_factors, np.tile([1.0, 1.0, 1.0, 0.0], (8, 1)))


def test_strong_jitter_never_has_a_negative_factor() -> None:
    factors = MultiCrop(jitter=(2.0, 1.5, 3.0, 0.5), num_local=500).draw(50, 50, key=(0,)).jitter_factors
    assert (factors[:, :3] >= 0).all()
    assert factors[:, 0].max() > 2.8
    assert (np.abs(factors[:, 3]) <= 0.5).all()


def test_settings_and_recipes_reach_the_views() -> None:
    recipe = load_recipe("dino_cnn_sslight").views
    from_recipe, built = MultiCrop.from_recipe("dino_cnn_sslight"), build_multi_crop(recipe)
    written = MultiCrop(2, 6, 224, 128, (0.3, 1.0), (0.05, 0.3))
    for multi_crop in (from_recipe, built):
        assert (multi_crop.num_global, multi_crop.num_local) == (2, 6)
        assert (multi_crop.global_size, multi_crop.local_size) == (224, 128)
        assert equal(multi_crop.draw(375, 500, (0,)), written.draw(375, 500, (0,)))
    changed = build_multi_crop(ViewSettings(flip_prob=0.0, blur_prob=(1.0, 1.0, 1.0), blur_sigma=(3.0, 4.0)))
    parameters = changed.draw(375, 500, (0,))
    assert not parameters.flip.any()
    assert (parameters.blur_sigma >= 3).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_global": 0}, "num_global=0 is too small: give an integer of at least 1"),
        ({"num_local": -1}, "num_local=-1 is too small"),
        ({"local_size": 0}, "local_size=0 is too small"),
        ({"local_scale": (0.05, 1.2)}, r"local_scale=\(0\.05, 1\.2\) is not an interval: .* ≤ 1\."),
        ({"global_scale": (0.6, 0.3)}, r"global_scale=\(0\.6, 0\.3\) is not an interval"),
        ({"global_scale": (0.0, 0.3)}, r"global_scale=\(0\.0, 0\.3\) is not an interval"),
        ({"aspect_ratio": (0.5, float("inf"))}, "aspect_ratio=.* is not an interval"),
        ({"flip_prob": 1.5}, r"flip_prob=1\.5 is not a probability: give 1 number from 0 to 1"),
        ({"blur_prob": (1.0, 0.1)}, r"blur_prob=\(1\.0, 0\.1\) is not 3 probabilities"),
        ({"solarize_prob": (0.0, -0.2)}, "solarize_prob=.* is not 2 probabilities"),
        ({"jitter": (0.4, 0.4, 0.2, 0.6)}, "jitter=.* is not four strengths"),
        ({"jitter": (0.4, 0.4, 0.2)}, "jitter=.* is not four strengths"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiCrop(**arguments)


@pytest.mark.parametrize("key", [(), (1, 2, 3, 4, 5), (-1,), (2**64,)])
def test_keys_that_name_nothing_are_refused(key: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="is not a key for random numbers"):
        SMALL(IMAGE, key=key)


def test_other_images_are_refused() -> None:
    for image in (IMAGE[:1], IMAGE.transpose(1, 2, 0), IMAGE.astype(np.float32), torch.zeros(3, 8, 8)):
        with pytest.raises(ValueError, match="views are cut from uint8 pixels"):
            SMALL(image, key=(0,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0 × 5 px"):
        SMALL(np.zeros((3, 5, 0), np.uint8), key=(0,))


def test_parameters_and_memory_for_something_else_are_refused() -> None:
    with pytest.raises(ValueError, match="draw them for this image"):
        SMALL.apply(IMAGE, SMALL.draw(480, 600, key=(0,)))
    with pytest.raises(ValueError, match="draw them for this image with this MultiCrop"):
        SMALL.apply(IMAGE, MultiCrop().draw(48, 60, key=(0,)))
    parameters = SMALL.draw(48, 60, key=(0,))
    with pytest.raises(ValueError, match="this MultiCrop makes 2 and 3"):
        SMALL.apply_into(IMAGE, parameters, np.zeros((2, 32, 32, 3), np.uint8), None)
    with pytest.raises(ValueError, match=r"out_globals has shape \(2, 30, 30, 3\) .*uint8 \[views, 32, 32, 3\]"):
        SMALL.apply_into(IMAGE, parameters, np.zeros((2, 30, 30, 3), np.uint8), np.zeros((3, 16, 16, 3), np.uint8))


def test_memory_of_views_that_are_not_contiguous_is_refused() -> None:
    parameters = SMALL.draw(48, 60, key=(0,))
    planar = np.zeros((2, 3, 32, 32), np.uint8).transpose(0, 2, 3, 1)
    with pytest.raises(ValueError, match="each of them contiguous"):
        SMALL.apply_into(IMAGE, parameters, planar, np.zeros((3, 16, 16, 3), np.uint8))


def test_warm_up_can_be_called_again() -> None:
    warm_up()
    warm_up()


@pytest.mark.parametrize(("height", "width"), [(3000, 4000), (640, 480), (300, 3000)])
def test_an_image_may_shrink_until_a_crop_could_be_smaller_than_its_view(height: int, width: int) -> None:
    crops = MultiCrop(num_local=6, local_size=128, global_scale=(0.3, 1.0), local_scale=(0.05, 0.3))
    factor = crops.most_shrinking(height, width)
    small_height, small_width = math.ceil(height / factor), math.ceil(width / factor)
    boxes = crops.draw_boxes(small_height, small_width, 2000, np.random.default_rng(0))
    sides = boxes[:, :, 2:].min(axis=(0, 2))
    assert (sides[:2] >= 223).all()  # boxes are rounded to pixels
    assert (sides[2:] >= 127).all()
    assert min(sides[:2].min() / 224, sides[2:].min() / 128) < 1.15


def test_a_photograph_of_twelve_megapixels_may_shrink_fivefold() -> None:
    crops = MultiCrop(num_local=6, local_size=128, global_scale=(0.3, 1.0), local_scale=(0.05, 0.3))
    assert crops.most_shrinking(3000, 4000) == pytest.approx((12e6 * 0.05 * 0.75) ** 0.5 / 128)
