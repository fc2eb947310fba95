"""Intervals: those of the papers that they are from, and as wide as they say."""

import math

import numpy as np
import pytest
from scipy import stats

from sslight.intervals import (
    difference_of_means,
    mean_interval,
    paired_difference,
    paired_runs,
    standard_error,
    t_quantile,
    wilson_interval,
)


@pytest.mark.parametrize(("right", "images"), [(0, 10), (10, 10), (61, 100), (1700, 2500), (34000, 50000)])
def test_the_interval_of_a_share_is_wilsons(right: int, images: int) -> None:
    expected = stats.binomtest(right, images).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, images) == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-9)


def test_the_standard_error_of_a_share_is_the_binomial_one_and_not_0_at_its_ends() -> None:
    rng = np.random.default_rng(0)
    assert standard_error(1400, 2000) == pytest.approx(100 * (rng.binomial(2000, 0.7, 20_000) / 2000).std(), rel=0.02)
    assert standard_error(70, 100) == pytest.approx(100 * math.sqrt(71 * 31 / 102**3))
    assert [standard_error(right, 20) for right in (0, 20)] == pytest.approx([4.44, 4.44], abs=0.01)


def test_quantiles_are_students() -> None:
    found = [t_quantile(freedom) for freedom in range(1, 60)]
    assert found == pytest.approx(stats.t.ppf(0.975, range(1, 60)), abs=2e-4)


def test_means_over_seeds_have_students_and_welchs_intervals() -> None:
    one, other = [3.0, 4.5, 4.0, 7.0], [1.0, 1.5, 0.5]
    middle, half = mean_interval(one)
    assert (middle - half, middle + half) == pytest.approx(
        stats.t.interval(0.95, 3, np.mean(one), stats.sem(one)), abs=1e-3
    )
    assert math.isnan(mean_interval([1.0])[1])
    found = difference_of_means(one, other)
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert found.value == 3.625
    assert found.low <= expected.low  # the degrees of freedom are rounded down
    assert found.low == pytest.approx(expected.low, abs=0.4)
    assert difference_of_means(other, one).verdict == "lower"
    assert difference_of_means([1.0, 1.0], [1.0, 1.0]).verdict == "not told apart"


@pytest.mark.parametrize(("ahead", "behind"), [(0, 0), (3, 0), (5, 0), (6, 0), (0, 9), (20, 8), (20, 10), (15, 7)])
def test_networks_are_told_apart_as_by_mcnemars_exact_test(ahead: int, behind: int) -> None:
    one = [1.0] * ahead + [0.0] * behind + [1.0] * 300
    other = [0.0] * ahead + [1.0] * behind + [1.0] * 300
    found = paired_difference(one, other)
    assert found.value == pytest.approx(100 * (ahead - behind) / len(one))
    p_value = stats.binomtest(ahead, ahead + behind).pvalue if ahead + behind else 1.0
    word = "not told apart" if p_value > 0.05 else "higher" if ahead > behind else "lower"
    assert found.verdict == word


def test_a_paired_interval_holds_the_difference_in_nineteen_of_twenty_draws_of_images() -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(1000):
        drawn = rng.choice([1.0, -1.0, 0.0], size=200, p=[0.15, 0.05, 0.8])
        found = paired_difference(drawn, np.zeros(200))
        held.append(found.low <= 10 <= found.high)
    assert 0.935 < np.mean(held) < 0.975


def test_without_an_image_on_which_they_differ_nothing_is_told_apart() -> None:
    found = paired_difference([1.0] * 8, [1.0] * 8)
    assert found.value == 0
    assert found.high > 10  # eight images say little


def test_differences_of_several_runs_count_both_runs_and_images() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for of_runs, of_images in ((0.05, 0.5), (0.0, 0.5), (0.05, 0.0)):
        covered = []
        for _ in range(400):
            images = of_images * rng.standard_normal(200)
            runs = of_runs * rng.standard_normal(3)
            found = paired_runs((0.1 + runs[:, None] + images).tolist())
            covered.append(found.low <= 10 <= found.high)
        widths.append(float(np.mean(covered)))
    assert min(widths) > 0.92
    equal = paired_runs([[0.0, 1.0] * 100, [0.0, 1.0] * 100])  # runs that agree by chance say nothing of images
    assert equal.high - equal.low == pytest.approx(
        100 * 2 * 1.972 * np.std([0, 1] * 100, ddof=1) / math.sqrt(200), rel=1e-3
    )
