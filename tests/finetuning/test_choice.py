"""Which images are chosen: what a loop over all pairs chooses, whatever the order, scale and shift of the features."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sslight.finetuning import choice
from sslight.finetuning.choice import choose_images


def clusters(num: int = 240, *, seed: int = 0) -> Tensor:
    """Features in twelve clusters of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(12, 16, generator=generator)
    sizes = torch.multinomial(1 / torch.arange(1.0, 13), num, replacement=True, generator=generator)
    return centers[sizes] + 0.7 * torch.randn(num, 16, generator=generator) + 5


def gains_by_loops(features: Tensor, taken: list[int], near_duplicate: float) -> dict[int, float]:
    """What each image that may be chosen after those taken adds to the similarities, pair by pair."""
    unit = F.normalize(features.double() - features.double().mean(0), dim=1)
    cosine = [[float(a @ b) for b in unit] for a in unit]
    alike = [max((row[other] for other in taken), default=-1.0) for row in cosine]
    return {
        row: sum(max(0.0, cosine[row][image] - alike[image]) for image in range(len(unit)))
        for row in range(len(unit))
        if row not in taken and alike[row] < near_duplicate
    }


@pytest.mark.parametrize(("labeled", "near_duplicate"), [([], 0.9), ([3, 17, 5], 0.9), ([3], 0.7)])
def test_each_image_gains_most_as_a_loop_over_all_pairs_counts_it(labeled: list[int], near_duplicate: float) -> None:
    features = clusters(90)
    found = choose_images(features, 12, labeled=np.array(labeled, np.int64), near_duplicate=near_duplicate)
    rows = found.rows.tolist()
    for number, row in enumerate(rows):
        gains = gains_by_loops(features, [*labeled, *rows[:number]], near_duplicate)
        assert gains[row] >= max(gains.values()) - 1e-4  # two images gain the same where they are all that is new


def test_fewer_images_are_the_first_of_more() -> None:
    features = clusters()
    whole = choose_images(features, 60)
    assert len({*whole.rows.tolist()}) == 60
    for num in (1, 7, 30):
        assert choose_images(features, num).rows.tolist() == whole.rows[:num].tolist()
    assert np.all(np.diff(whole.similarity) >= 0)


def test_memory_does_not_grow_with_the_square_of_the_number_and_the_choice_stays_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features = clusters(1000)
    expected = choose_images(features, 150)
    monkeypatch.setattr(choice, "_LEAST_SAMPLE", 100)  # images whose cosines are kept
    with LargestResult() as largest:  # type: ignore[no-untyped-call]
        found = choose_images(features, 200)  # from five times as many, which is all
    assert largest.numbers <= max(features.numel(), 16 * 1000)
    assert found.rows[:150].tolist() == expected.rows.tolist()
    assert found.near_duplicate == pytest.approx(expected.near_duplicate, abs=1e-6)


class LargestResult(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Numbers in the largest tensor that an operation makes."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(each.numel() for each in tree_leaves(found) if isinstance(each, Tensor))])
        return found


def test_order_scale_and_shift_of_the_features_change_nothing() -> None:
    features = clusters()
    expected = choose_images(features, 30).rows
    order = torch.from_numpy(np.random.default_rng(1).permutation(len(features)))
    assert order[choose_images(features[order], 30).rows].tolist() == expected.tolist()
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(2))).Q
    assert choose_images(7 * features @ rotation - 3, 30).rows.tolist() == expected.tolist()


def test_without_a_threshold_near_is_a_fifth_of_the_median_distance_whatever_the_spread_of_the_features() -> None:
    features = clusters()
    twin = features[8] + 0.05 * torch.randn(16, generator=torch.Generator().manual_seed(1))
    both = torch.cat([features, twin[None]])
    for stretched in (both, both * torch.logspace(0, -2, 16)):  # the second is almost of a few dimensions
        found = choose_images(stretched, 100)
        unit = F.normalize(stretched - stretched.mean(0), dim=1)
        nearest = (unit @ unit.T).fill_diagonal_(-1).max(1).values
        assert 1 - found.near_duplicate == pytest.approx(0.2 * float((1 - nearest).median()), rel=1e-3)
        groups = [{int(row), *others.tolist()} for row, others in zip(found.rows, found.duplicates, strict=True)]
        assert any({8, 240} <= group for group in groups)
        assert sum(len(group) > 1 for group in groups) < 20


def test_of_near_duplicates_one_is_chosen_and_the_others_are_named() -> None:
    features = clusters()
    copies = features[[8, 8, 200]] + 0.01 * torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    found = choose_images(torch.cat([features, copies]), 200, near_duplicate=0.99)
    groups = [{int(row), *others.tolist()} for row, others in zip(found.rows, found.duplicates, strict=True)]
    assert {8, 240, 241} in groups
    assert {200, 242} in groups
    unit = F.normalize(torch.cat([features, copies]) - torch.cat([features, copies]).mean(0), dim=1)[found.rows]
    assert float((unit @ unit.T).fill_diagonal_(-1).max()) < 0.99


def test_every_image_is_represented_by_the_chosen_one_most_alike() -> None:
    features = clusters()
    found = choose_images(features, 25)
    unit = F.normalize(features - features.mean(0), dim=1)
    nearest = (unit @ unit[found.rows].T).argmax(1)
    assert found.represents.tolist() == torch.bincount(nearest, minlength=25).tolist()
    assert found.represents.sum() == len(features)
    assert float((unit @ unit[found.rows].T).max(1).values.mean()) == pytest.approx(
        float(found.similarity[-1]), abs=1e-5
    )


def test_images_that_are_like_labeled_ones_are_not_chosen_again() -> None:
    features = clusters()
    first = choose_images(features, 20)
    second = choose_images(features, 20, labeled=np.sort(first.rows))
    both = choose_images(features, 40)
    assert second.rows.tolist() == both.rows[20:].tolist()
    unit = F.normalize(features - features.mean(0), dim=1)
    nearest = (unit @ unit[both.rows].T).argmax(1)
    assert second.represents.tolist() == torch.bincount(nearest, minlength=40)[20:].tolist()


def test_where_all_others_are_near_duplicates_fewer_are_chosen() -> None:
    features = clusters(6).repeat(5, 1)
    found = choose_images(features, 20)
    assert len(found.rows) == 6
    assert [len(others) for others in found.duplicates] == [4] * 6
    assert found.represents.tolist() == [5] * 6


def test_a_sample_of_many_images_stands_for_all_and_covers_them_almost_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    features = clusters(3000)
    whole = choose_images(features, 20)
    monkeypatch.setattr(choice, "_LEAST_SAMPLE", 1000)
    part = choose_images(features, 20)
    assert part.rows.tolist() != whole.rows.tolist()
    assert float(part.similarity[-1]) > float(whole.similarity[-1]) - 0.02
    assert part.represents.sum() == len(features)
