"""Logistic regression against scikit-learn's on the same features."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sslight.evaluate.classifiers import logistic
from sslight.evaluate.classifiers.logistic import fit_logistic_regression


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


@pytest.mark.parametrize(("l2", "tolerance"), [(1e-4, 0.1), (1e-2, 0.005)])  # 100 iterations end early for the weaker
def test_accuracy_and_probabilities_are_scikit_learns_at_the_same_strength(l2: float, tolerance: float) -> None:
    digits, labels = (np.asarray(part) for part in load_digits(return_X_y=True))
    features = digits.astype(np.float64)
    train, test = slice(0, 1000), slice(1000, None)
    fitted = fit_logistic_regression(
        torch.from_numpy(features[train]), torch.from_numpy(labels[train]), num_classes=10, l2=l2
    )
    scores = fitted.logits(torch.from_numpy(features[test]))
    std = np.where(features[train].std(0, ddof=1) > 0, features[train].std(0, ddof=1), 1)
    scaled = (features - features[train].mean(0)) / std
    theirs = LogisticRegression(C=1 / (l2 * 1000), max_iter=5000, tol=1e-8).fit(scaled[train], labels[train])
    ours = float((scores.argmax(1).numpy() == labels[test]).mean())
    assert abs(ours - theirs.score(scaled[test], labels[test])) <= 0.002
    np.testing.assert_allclose(scores.softmax(1).numpy(), theirs.predict_proba(scaled[test]), atol=tolerance)


def test_blocks_do_not_change_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    train, labels = blobs(300, 1)
    train = train.double()
    whole = fit_logistic_regression(train, labels, num_classes=6, l2=1e-2)
    monkeypatch.setattr(logistic, "_BLOCK", 7)
    in_blocks = fit_logistic_regression(train, labels, num_classes=6, l2=1e-2)
    torch.testing.assert_close(in_blocks.logits(train), whole.logits(train), rtol=1e-2, atol=1e-2)


def test_the_strength_is_chosen_without_a_look_at_other_features() -> None:
    """Noise whose labels mean nothing wants the strongest penalty, separable blobs a weak one."""
    generator = torch.Generator().manual_seed(0)
    noise, labels = torch.randn(400, 30, generator=generator), torch.randint(0, 4, (400,), generator=generator)
    clear = torch.eye(4)[labels] * 5 + 0.1 * noise[:, :4]
    assert fit_logistic_regression(noise, labels, num_classes=4).l2 >= 1e-2
    fitted = fit_logistic_regression(clear, labels, num_classes=4)
    assert bool((fitted.logits(clear).argmax(1) == labels).all())


@pytest.mark.parametrize("balanced", [False, True])
def test_several_labels_are_fitted_each_by_itself_as_scikit_learn_does(*, balanced: bool) -> None:
    digits, labels = (np.asarray(part) for part in load_digits(return_X_y=True))
    features, tags = digits.astype(np.float64), np.stack([labels % 2 == 0, labels > 6, labels == 3], 1)
    train, test = slice(0, 1000), slice(1000, None)
    ones = tags[train].sum(0)
    weights = (1000 - ones) / ones if balanced else np.ones(3)
    fitted = fit_logistic_regression(
        torch.from_numpy(features[train]),
        torch.from_numpy(tags[train].astype(np.int64)),
        num_classes=3,
        l2=0.1,
        weights=torch.from_numpy(weights),
    )
    found = fitted.logits(torch.from_numpy(features[test])).numpy()
    std = np.where(features[train].std(0, ddof=1) > 0, features[train].std(0, ddof=1), 1)
    scaled = (features - features[train].mean(0)) / std
    for column in range(3):
        theirs = LogisticRegression(C=0.01, class_weight={0: 1.0, 1: weights[column]}, max_iter=1000)
        theirs.fit(scaled[train], tags[train, column])
        expected = theirs.decision_function(scaled[test])
        np.testing.assert_allclose(found[:, column], expected, atol=0.01 * np.abs(expected).max())


def test_the_strength_for_several_labels_is_chosen_by_what_is_held_out() -> None:
    train, labels = blobs(600, 1)
    noise = torch.randn(600, 20, generator=torch.Generator().manual_seed(0))
    tags = torch.stack([labels == 0, labels > 2], 1).long()
    assert fit_logistic_regression(noise, tags, num_classes=2).l2 >= 0.1
    assert fit_logistic_regression(train, tags, num_classes=2).l2 <= 0.1


def test_a_linear_layer_takes_over_what_was_fitted() -> None:
    train, labels = blobs(300, 1)
    fitted = fit_logistic_regression(train, labels, num_classes=6, l2=1e-2)
    layer = torch.nn.Linear(20, 6)
    fitted.fill(layer)
    torch.testing.assert_close(layer(train), fitted.logits(train), rtol=1e-4, atol=1e-4)
    assert layer.weight.requires_grad
