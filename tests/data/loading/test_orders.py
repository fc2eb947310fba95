"""An epoch shard by shard: every image once, the same for any number of processes, from any step on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sslight.data.loading.orders import BlockOrder, GlobalOrder

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)
WINDOWS = st.integers(1, 14)
EPOCHS = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 50))


def order_of(sizes: list[int], window: int, seed: int) -> BlockOrder:
    return BlockOrder(np.cumsum(sizes), window, seed)


@given(SIZES, WINDOWS, EPOCHS)
def test_every_image_comes_once(sizes: list[int], window: int, key: tuple[int, int]) -> None:
    seed, epoch = key
    whole = [int(step[0]) for step in order_of(sizes, window, seed).steps(epoch, 1, 0)]
    assert sorted(whole) == list(range(sum(sizes)))


@given(SIZES, WINDOWS, EPOCHS, st.integers(1, 12))
def test_batches_hold_the_images_of_the_order_and_any_step_can_be_the_first(
    sizes: list[int], window: int, key: tuple[int, int], batch_size: int
) -> None:
    seed, epoch = key
    order = order_of(sizes, window, seed)
    one_by_one = [int(step[0]) for step in order.steps(epoch, 1, 0)]
    batches = [batch.tolist() for batch in order.steps(epoch, batch_size, 0)]
    assert len(batches) == sum(sizes) // batch_size
    for number, batch in enumerate(batches):
        assert sorted(batch) == sorted(one_by_one[number * batch_size : (number + 1) * batch_size])
    for start in range(len(batches) + 1):
        assert [batch.tolist() for batch in order.steps(epoch, batch_size, start)] == batches[start:]


@given(SIZES, WINDOWS, EPOCHS)
def test_a_window_of_shards_ends_before_the_next_begins(sizes: list[int], window: int, key: tuple[int, int]) -> None:
    seed, epoch = key
    ends = np.cumsum(sizes)
    images = np.array([int(step[0]) for step in order_of(sizes, window, seed).steps(epoch, 1, 0)])
    shards = np.searchsorted(ends, images, side="right")
    spans = {int(shard): (np.flatnonzero(shards == shard)[0], np.flatnonzero(shards == shard)[-1]) for shard in shards}
    for place in range(len(images)):
        assert sum(first <= place <= last for first, last in spans.values()) <= window


def test_each_of_several_processes_needs_few_of_the_shards() -> None:
    ends = np.cumsum([100] * 64)
    needed = np.zeros((4, 64), dtype=bool)
    for batch in BlockOrder(ends, 16, 0).steps(0, 256, 0):
        for rank, share in enumerate(np.split(batch, 4)):
            needed[rank, np.searchsorted(ends, share, side="right")] = True
    assert needed.any(axis=0).all()
    assert needed.mean() < 0.5  # a permutation of the images would give all to each


def test_seed_and_epoch_change_the_order_of_shards_and_of_images() -> None:
    def images(seed: int, epoch: int) -> list[int]:
        return [int(step[0]) for step in order_of([20] * 20, 4, seed).steps(epoch, 1, 0)]

    first = images(0, 0)
    assert first == images(0, 0)
    for other in (images(1, 0), images(0, 1)):
        assert first != other
        assert {i // 20 for i in first[:80]} != {i // 20 for i in other[:80]}
    within = [i % 20 for i in first if i // 20 == first[0] // 20]
    assert within != sorted(within)


@pytest.mark.parametrize("num_images", [1, 10, 1000])
def test_the_global_order_is_one_permutation(num_images: int) -> None:
    batches = list(GlobalOrder(num_images, 3).steps(2, 1, 0))
    assert sorted(int(batch[0]) for batch in batches) == list(range(num_images))
