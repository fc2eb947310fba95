"""Neighbours and the plane of a map, against what can be computed by hand."""

import numpy as np
import pytest

from sslight.report.run.feature_space import (
    drawn_queries,
    neighbors_of_the_same_class,
    principal_plane,
    spread_sample,
)


def test_queries_are_of_as_many_classes_as_there_are() -> None:
    labels = np.repeat([0, 1, 2, 3], 25)
    assert sorted(labels[drawn_queries(labels, 100, 4, seed=0)]) == [0, 1, 2, 3]
    assert len(set(drawn_queries(labels, 100, 100, seed=0).tolist())) == 100
    assert len(set(drawn_queries(None, 100, 6, seed=0).tolist())) == 6


def test_a_sample_has_alike_many_of_each_class_and_of_many_classes_some() -> None:
    labels = np.concatenate([np.zeros(900, np.int64), np.ones(100, np.int64)])
    assert np.bincount(labels[spread_sample(labels, 1000, 100, seed=0)]).tolist() == [50, 50]
    many = np.repeat(np.arange(100), 20)
    classes, counts = np.unique(many[spread_sample(many, 2000, 40, seed=0)], return_counts=True)
    assert classes.tolist() == [0, 25, 50, 74, 99]
    assert set(counts.tolist()) == {8}


def test_the_share_of_neighbours_of_the_same_class_is_counted_over_all_images() -> None:
    labels = np.repeat([0, 1, 2], 6)
    neighbors = np.repeat((np.arange(18) + 1) % 6, 2).reshape(18, 2)  # of class 0, whatever the image is
    share, chance = neighbors_of_the_same_class(neighbors, labels)
    assert share == pytest.approx(1 / 3)
    assert chance == pytest.approx(5 / 17)


def test_the_plane_is_that_of_the_largest_variance() -> None:
    rng = np.random.default_rng(1)
    spreads = np.array([0.1, 3.0, 0.1, 1.0])
    features = (rng.normal(size=(500, 4)) * spreads + 7).astype(np.float32)
    places, share = principal_plane(features)
    assert abs(np.corrcoef(places[:, 0], features[:, 1])[0, 1]) > 0.999
    assert abs(np.corrcoef(places[:, 1], features[:, 3])[0, 1]) > 0.99
    variances = features.var(0)
    assert share == pytest.approx((variances[1] + variances[3]) / variances.sum(), abs=0.01)


def test_features_without_variance_are_one_place() -> None:
    places, share = principal_plane(np.ones((5, 3), np.float32))
    assert not places.any()
    assert share == 0.0
