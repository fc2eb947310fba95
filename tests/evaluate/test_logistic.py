"""Logistic regression against scikit-learn's on the same features."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sslight.evaluate import fit_logistic_regression


def blobs(num: int, seed: int, num_classes: int = 6, dim: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    centres = np.random.default_rng(0).normal(size=(num_classes, dim))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num)
    features = centres[labels] + 1.6 * rng.normal(size=(num, dim))
    return torch.from_numpy(features * np.geomspace(0.01, 100, dim)).float(), torch.from_numpy(labels)


def test_accuracy_is_within_a_point_of_scikit_learns_best() -> None:
    train, train_labels = blobs(1500, 1)
    test, test_labels = blobs(4000, 2)
    logits = fit_logistic_regression(train, train_labels, num_classes=6).logits(test)
    ours = float((logits.argmax(1) == test_labels).float().mean())
    scaler = StandardScaler().fit(train.numpy())
    theirs = max(
        LogisticRegression(C=c, max_iter=1000)
        .fit(scaler.transform(train.numpy()), train_labels.numpy())
        .score(scaler.transform(test.numpy()), test_labels.numpy())
        for c in (1e-3, 1e-2, 1e-1, 1.0)
    )
    assert theirs > 0.6
    assert ours > theirs - 0.01


def test_a_constant_feature_changes_nothing() -> None:
    train, labels = blobs(300, 1)
    test, _ = blobs(50, 2)
    train, test = train.double(), test.double()  # L-BFGS in float32 ends in another place on another processor
    with_constant = [torch.cat([x, torch.full((len(x), 1), 3.0, dtype=x.dtype)], 1) for x in (train, test)]
    expected = fit_logistic_regression(train, labels, num_classes=6).logits(test)
    torch.testing.assert_close(
        fit_logistic_regression(with_constant[0], labels, num_classes=6).logits(with_constant[1]),
        expected,
        rtol=1e-3,
        atol=1e-3,
    )
