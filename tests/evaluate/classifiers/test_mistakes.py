"""Average precision against scikit-learn, and the mistakes of a few images written out."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from sslight.data import SyntheticSource
from sslight.evaluate.classifiers.mistakes import (
    average_precision,
    average_precision_error,
    average_precision_interval,
    mean_average_precision,
    mistakes_of,
    multi_label_result,
    paired_precision_difference,
)


@pytest.mark.parametrize("decimals", [8, 1])  # one decimal: many images tie
def test_average_precision_is_that_of_scikit_learn(decimals: int) -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, (60, 4))
    scores = np.round(targets * 0.3 + rng.normal(size=(60, 4)), decimals)
    expected = average_precision_score(targets, scores, average=None)
    np.testing.assert_allclose(average_precision(scores, targets), expected)
    low, high = average_precision_interval(scores, targets)
    assert 0 < low < expected.mean() < high < 1


@pytest.mark.parametrize("decimals", [8, 1])
def test_images_are_drawn_as_if_they_were_there_several_times(decimals: int) -> None:
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 2, (40, 3))
    scores = np.round(rng.normal(size=(40, 3)), decimals)
    again = np.random.default_rng(0)
    drawn = [again.integers(0, 42, 42) for _ in range(100)]
    ends = np.concatenate([scores, np.full((1, 3), 99.0), np.full((1, 3), -99.0)])
    more = np.concatenate([targets, np.ones((2, 3), np.int64)])
    naive = [np.mean(average_precision_score(more[rows], ends[rows], average=None)) for rows in drawn]
    assert average_precision_error(scores, targets) == pytest.approx(np.std(naive))
    assert 0 < average_precision_error(targets + 0.0, targets) < 0.5 * average_precision_error(scores, targets)
    worse = rng.normal(size=(40, 3))
    found = paired_precision_difference(scores + targets, worse, targets)
    expected = mean_average_precision(scores + targets, targets) - mean_average_precision(worse, targets)
    assert found.value == pytest.approx(100 * expected)
    assert found.verdict == "higher"
    same = paired_precision_difference(scores, scores, targets)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_of_each_label_those_images_are_worst_that_are_on_the_wrong_side_of_another() -> None:
    targets = torch.tensor([[1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]])
    logits = torch.tensor([[2.0, 3, 0], [1, 4, 0], [-1, 1, 0], [0, 2, 0]])
    found = multi_label_result(logits, targets, torch.arange(4), ("a", "b", "c"), SyntheticSource(4))
    name = [SyntheticSource(4).name(index) for index in range(4)]
    assert found["accuracy"]["map"] == pytest.approx(100 * (1 + (1 + 2 / 4) / 2) / 2)
    assert set(found["per_class"]) == {"a", "b"}
    worst = [(each["class"], each["name"], each["labeled"], each["probability"]) for each in found["worst_images"]]
    assert worst == [  # of b all are in order, of c there is none
        ("a", name[1], False, pytest.approx(0.7311, abs=1e-4)),
        ("a", name[3], False, 0.5),
        ("a", name[2], True, pytest.approx(0.2689, abs=1e-4)),
    ]


def test_a_label_that_no_image_has_is_left_out() -> None:
    targets = np.array([[1, 0], [0, 0]])
    found = average_precision(np.eye(2), targets)
    assert found[0] == 1.0
    assert np.isnan(found[1])


def test_mistakes_are_counted_and_the_worst_image_comes_first() -> None:
    labels = torch.tensor([0, 0, 1, 2, 2])
    logits = torch.tensor([[2.0, 0, 0], [0, 1, 0], [0, 3, 0], [5, 0, 0], [1, 0, 0]])
    found = mistakes_of(logits, labels, torch.arange(5), ("a", "b", "c"), SyntheticSource(5))
    assert found["confusion_matrix"] == [[1, 1, 0], [0, 1, 0], [2, 0, 0]]
    names = [SyntheticSource(5).name(index) for index in (3, 1, 4)]
    worst = [image["name"] for image in found["worst_images"]]
    assert worst[0] == names[0]
    assert set(worst) == set(names)
    first = found["worst_images"][0]
    assert (first["class"], first["taken_for"]) == ("c", "a")
    assert first["probability"] == pytest.approx(float(logits[3].softmax(0)[2]), abs=1e-4)
    assert first["its_probability"] == pytest.approx(float(logits[3].softmax(0)[0]), abs=1e-4)


def test_of_two_mistakes_the_surer_one_is_the_worse_even_if_the_right_class_is_more_probable() -> None:
    logits = torch.tensor([[0.0, 0.1, 0.2, -9.0], [4.0, 0.0, 0.0, 1.0]])
    found = mistakes_of(logits, torch.tensor([3, 3]), torch.arange(2), tuple("abcd"), SyntheticSource(2))
    assert [each["name"] for each in found["worst_images"]] == [SyntheticSource(2).name(at) for at in (1, 0)]


def test_a_matrix_of_many_classes_is_left_out() -> None:
    source = SyntheticSource(101)
    found = mistakes_of(torch.eye(101), torch.arange(101), torch.arange(101), [str(n) for n in range(101)], source)
    assert found["confusion_matrix"] is None
