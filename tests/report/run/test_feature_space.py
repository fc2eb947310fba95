"""Neighbours and the plane of a map, against what can be computed by hand."""

import numpy as np
import pytest

from sslight.report.run.feature_space import (
    nearest_images,
    neighbors_of_the_same_class,
    normalized_rows,
    principal_plane,
)


def test_neighbours_are_in_the_order_of_their_cosine_and_exclude_the_image_itself() -> None:
    angles = np.radians([0.0, 10.0, 25.0, 90.0])
    rows = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    nearest, cosines = nearest_images(rows, np.array([0, 3]), 2)
    assert nearest.tolist() == [[1, 2], [2, 1]]
    assert cosines[0] == pytest.approx(np.cos(np.radians([10.0, 25.0])), abs=1e-6)


def test_no_more_neighbours_than_other_images() -> None:
    nearest, _ = nearest_images(normalized_rows(np.eye(3, dtype=np.float32)), np.array([1]), 10)
    assert sorted(nearest[0].tolist()) == [0, 2]


def test_rows_of_zeros_stay() -> None:
    rows = normalized_rows(np.array([[0.0, 0.0], [3.0, 4.0]], np.float32))
    assert rows.ravel() == pytest.approx([0.0, 0.0, 0.6, 0.8])


def test_the_share_of_neighbours_of_the_same_class_is_one_for_clusters() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 6)
    rows = normalized_rows((np.eye(3)[labels] + 0.01 * rng.normal(size=(18, 3))).astype(np.float32))
    share, chance = neighbors_of_the_same_class(rows, labels, 5)
    assert share == 1.0
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
