"""Indicators on features whose values are known."""

import pytest
import torch

from sslight.pretraining.health import HEALTHY, RecentFeatures, health_line
from sslight.train.task import EARLY


def feature_health(*batches: torch.Tensor) -> dict[str, torch.Tensor]:
    recent = RecentFeatures()
    for batch in batches:
        recent.add(batch)
    return recent.health()


def test_identical_features_have_no_spread_and_rank_one() -> None:
    health = feature_health(torch.ones(32, 10))
    assert float(health["feature_spread"]) == pytest.approx(0, abs=1e-3)
    assert float(health["effective_rank"]) == pytest.approx(1, abs=1e-3)


def test_directions_spread_evenly_have_spread_one_and_the_rank_of_their_dimension() -> None:
    features = torch.cat([torch.eye(16), -torch.eye(16)])
    health = feature_health(features)
    assert float(health["feature_spread"]) == pytest.approx(1, abs=1e-5)
    assert float(health["effective_rank"]) == pytest.approx(16, rel=0.02)


def test_the_effective_rank_of_a_plane_is_two() -> None:
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(200, 2, generator=generator) @ torch.linalg.qr(torch.randn(2, 50, generator=generator).T)[0].T
    assert float(feature_health(plane)["effective_rank"]) == pytest.approx(2, abs=0.1)


def test_the_rank_of_small_batches_is_that_of_the_latest_256_images_together() -> None:
    rows = torch.randn(32, 16, 64, generator=torch.Generator().manual_seed(0))
    many = float(feature_health(*rows)["effective_rank"])
    assert many == float(feature_health(*rows[16:])["effective_rank"])
    assert many > 50 > 15 > float(feature_health(rows[0])["effective_rank"])


def test_a_network_that_moves_between_steps_does_not_seem_to_use_more_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    line = torch.randn(16, 16, 1, generator=generator) * torch.randn(64, generator=generator)
    moving = line + torch.randn(16, 1, 64, generator=generator)
    assert float(feature_health(*moving)["effective_rank"]) == pytest.approx(1, abs=0.1)


def test_non_finite_features_give_nan_and_no_error() -> None:
    assert feature_health(torch.full((4, 3), torch.inf))["effective_rank"].isnan()


FIGURES = {"feature_spread": 0.5, "effective_rank": 12.3}


def test_the_line_names_what_there_is() -> None:
    line = health_line({"feature_spread": 0.5, "effective_rank": 12.3, "teacher_entropy": 0.91}, 64, HEALTHY)
    assert line == "health: healthy · teacher entropy 0.910 of ln K · feature spread 0.50 · effective rank 12 of 252"
    assert "prototypes used 40 %" in health_line({**FIGURES, "prototypes_used": 0.4}, 64, EARLY)
    line = health_line({**FIGURES, "key_similarity": 0.812, "contrast_top1": 93.4}, 64, EARLY)
    assert "key similarity 0.81 · own key nearest 93 %" in line
    assert "entropy" not in health_line({"feature_spread": 0.5, "effective_rank": 12.3}, 64, EARLY)
