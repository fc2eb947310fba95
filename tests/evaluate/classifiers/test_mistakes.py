"""Average precision against scikit-learn, and the mistakes of a few images written out."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from sslight.data import SyntheticSource
from sslight.evaluate.classifiers.mistakes import average_precision, average_precision_interval, mistakes_of


@pytest.mark.parametrize("decimals", [8, 1])  # one decimal: many images tie
def test_average_precision_is_that_of_scikit_learn(decimals: int) -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, (60, 4))
    scores = np.round(targets * 0.3 + rng.normal(size=(60, 4)), decimals)
    expected = average_precision_score(targets, scores, average=None)
    np.testing.assert_allclose(average_precision(scores, targets), expected)
    low, high = average_precision_interval(scores, targets)
    assert 0 < low < expected.mean() < high < 1


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
    assert found["worst_images"][0]["probability"] == pytest.approx(float(logits[3].softmax(0)[2]), abs=1e-4)


def test_a_matrix_of_many_classes_is_left_out() -> None:
    source = SyntheticSource(101)
    found = mistakes_of(torch.eye(101), torch.arange(101), torch.arange(101), [str(n) for n in range(101)], source)
    assert found["confusion_matrix"] is None
