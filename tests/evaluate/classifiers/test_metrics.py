"""Accuracies and their intervals."""

import pytest
import torch
from scipy.stats import binomtest

from sslight.evaluate import wilson_interval
from sslight.evaluate.classifiers.metrics import accuracy_of_ranks, label_ranks


@pytest.mark.parametrize(("right", "images"), [(0, 10), (10, 10), (61, 100), (1700, 2500), (34000, 50000)])
def test_the_interval_is_wilsons(right: int, images: int) -> None:
    expected = binomtest(right, images).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, images) == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-9)


def test_ties_and_numbers_that_are_none_count_against_the_classifier() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0], [0.0, 2.0, 2.0], [float("nan"), 0.0, 1.0]])
    assert label_ranks(scores, torch.tensor([0, 0, 0, 0])).tolist() == [0, 2, 2, 2]
    assert label_ranks(scores, torch.tensor([2, 2, 1, 2])).tolist() == [2, 2, 1, 1]


def test_top_1_top_5_and_classes() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 5])
    found = accuracy_of_ranks(torch.tensor([0, 4, 5, 0, 0, 1]), labels, list("abcdef"))
    assert found.top1 == 50.0
    assert found.top5 == pytest.approx(100 * 5 / 6)
    assert found.num_images == 6
    assert found.per_class == {"a": (pytest.approx(100 / 3), 3), "b": (100.0, 2), "f": (0.0, 1)}


def test_five_classes_have_no_top_5() -> None:
    assert accuracy_of_ranks(torch.tensor([0, 1]), torch.tensor([0, 1]), list("abcde")).top5 is None
