"""Accuracies from ranks."""

import pytest
import torch

from sslight.evaluate.classifiers.metrics import accuracy_of_ranks, hits, label_answers, label_ranks, largest_confusions


def ranks(*ahead: int) -> torch.Tensor:
    """Ranks without ties."""
    return torch.tensor([[number, 0] for number in ahead])


def test_ties_are_counted_apart_and_numbers_that_are_none_are_against_the_classifier() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0], [0.0, 2.0, 2.0], [float("nan"), 0.0, 1.0]])
    assert label_ranks(scores, torch.tensor([0, 0, 0, 0])).tolist() == [[0, 0], [0, 2], [2, 0], [2, 0]]
    assert label_ranks(scores, torch.tensor([2, 2, 1, 2])).tolist() == [[2, 0], [0, 2], [0, 1], [1, 0]]


def test_of_two_that_tie_each_is_right_by_half_and_a_constant_score_is_chance() -> None:
    tied = torch.tensor([[0, 1], [1, 1], [0, 0]])
    assert hits(tied).tolist() == [0.5, 0.0, 1.0]
    assert hits(tied, 2).tolist() == [1.0, 0.5, 1.0]
    constant = label_ranks(torch.zeros(4, 10), torch.arange(4))
    found = accuracy_of_ranks(constant, torch.arange(4), list("abcdefghij"))
    assert (found.top1, found.top5) == (10.0, 50.0)


def test_scores_that_were_rounded_lose_nothing_on_average() -> None:
    scores = torch.randn(4000, 10, generator=torch.Generator().manual_seed(0))
    labels = scores.argmax(1)
    scores[::2] = scores[::2].roll(1, dims=1)  # half of the images are wrong
    rounded = (4 * scores).round()
    exact, coarse = (float(hits(label_ranks(each, labels)).mean()) for each in (scores, rounded))
    against = float((label_ranks(rounded, labels).sum(1) == 0).double().mean())
    assert abs(coarse - exact) < 0.07 < exact - against


def test_top_1_top_5_and_classes() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 5])
    found = accuracy_of_ranks(ranks(0, 4, 5, 0, 0, 1), labels, list("abcdef"))
    assert found.top1 == 50.0
    assert found.top5 == pytest.approx(100 * 5 / 6)
    assert found.num_images == 6
    assert found.per_class == {"a": (pytest.approx(100 / 3), 3), "b": (100.0, 2), "f": (0.0, 1)}


def test_five_classes_have_no_top_5() -> None:
    assert accuracy_of_ranks(ranks(0, 1), torch.tensor([0, 1]), list("abcde")).top5 is None


def test_the_largest_confusions_are_counted_and_ties_are_none() -> None:
    labels = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    taken_for = [1, 1, 1, 2, 0, 0, 0, 1, 0, 2]
    scores = torch.eye(3)[taken_for]
    scores[8] = torch.tensor([1.0, 0.0, 1.0])  # a tie for the first place
    found = largest_confusions(label_answers(scores, labels), labels, ["ant", "bee", "cat"])
    assert found == [
        {"class": "ant", "taken_for": "bee", "images": 3},
        {"class": "bee", "taken_for": "ant", "images": 2},
        {"class": "ant", "taken_for": "cat", "images": 1},
    ]
    everything = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    answers = label_answers(torch.eye(5)[everything[:, 1]], everything[:, 0])
    assert len(largest_confusions(answers, everything[:, 0], list("abcde"))) == 10
    right = torch.arange(3)
    assert largest_confusions(label_answers(torch.eye(3), right), right, ["ant", "bee", "cat"]) == []
