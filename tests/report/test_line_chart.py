"""Curves show every record that matters, and gaps where there is none."""

import math
import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from sslight.report.line_chart import Figure, Line, Reference, line_chart, number


def chart(points: list[tuple[float, float]], references: Sequence[Reference] = (), **more: bool) -> str:
    end = max(x for x, _ in points)
    return line_chart([Line(points, "--c")], Figure("t", **{"smooth": False, **more}), "steps", end, references)  # type: ignore[arg-type]


def paths(drawing: str, kind: str = "line") -> list[str]:
    return re.findall(rf'<path d="([^"]*)" class="{kind}"', drawing)


def corners(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([-\d.]+)", path)]


def ticks(drawing: str) -> list[str]:
    return re.findall(r'text-anchor="end">([^<]+)</text>', drawing)


def test_a_curve_goes_from_corner_to_corner() -> None:
    drawing = chart([(0, 0.0), (50, 5.0), (100, 10.0)])
    assert corners(paths(drawing)[0]) == [(44, 156), (189, 81), (334, 6)]
    assert drawing.count("<circle") == 3  # few points are marked
    assert "0" in ticks(drawing)
    assert "10" in ticks(drawing)


def test_the_curve_is_broken_where_a_figure_is_not_finite() -> None:
    path = paths(chart([(0, 1.0), (1, 2.0), (2, math.nan), (3, 2.0), (4, 1.0)]))[0]
    assert path.count("M") == 2
    assert len(corners(path)) == 4


def test_thousands_of_points_become_few_and_no_peak_is_lost() -> None:
    points = [(float(i), math.sin(i / 3000)) for i in range(20_000)]
    points[7_777] = (7_777.0, 50.0)
    drawing = chart(points, smooth=True)
    assert len(drawing) < 20_000
    top = min(y for _, y in corners(paths(drawing, "raw")[0]))
    assert top == pytest.approx(156 - 150 * 70 / 80, abs=0.1)  # 50 on an axis from -20 to 60
    assert min(y for _, y in corners(paths(drawing)[0])) > 100  # the mean is not moved much by one record


def test_means_of_a_constant_are_the_constant() -> None:
    drawing = chart([(float(i), 3.0) for i in range(100)], smooth=True)
    assert {y for _, y in corners(paths(drawing)[0])} == {y for _, y in corners(paths(drawing, "raw")[0])}


@pytest.mark.parametrize(
    ("values", "log"), [([0.01, 1.0], True), ([0.0, 1.0], False), ([0.5, 1.0], False), ([-1.0, 100.0], False)]
)
def test_values_over_fifty_times_their_smallest_get_a_logarithmic_axis(values: list[float], log: bool) -> None:
    drawing = chart(list(enumerate(values)))
    assert ("(log)" in drawing) is log
    assert "(log)" not in chart(list(enumerate(values)), percent=True)


@pytest.mark.parametrize("value", [0.0, 1e-30, -4.0, 1e-6, 12345.0, 1e20])
def test_a_single_value_has_an_axis_of_its_own(value: float) -> None:
    drawing = chart([(0, value), (1, value)])
    assert all(0 <= y <= 160 for _, y in corners(paths(drawing)[0]))
    assert len(ticks(drawing)) >= 2


def test_any_values_stay_inside() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        scale = 10.0 ** rng.uniform(-8, 8)
        values = rng.normal(rng.normal() * scale, scale * rng.uniform(0.001, 1), 20).tolist()
        for _, y in corners(paths(chart(list(enumerate(values))))[0]):
            assert 5.9 <= y <= 156.1


def test_the_last_values_stand_beside_their_curves_and_not_over_one_another() -> None:
    lines = [Line([(0, 1.0), (9, value)], f"--c{value}") for value in (0.0, 5.0, 5.01, 0.02)]
    drawing = line_chart(lines, Figure("t"), "steps", 9)
    found = re.findall(r'x="340" y="([\d.]+)" style="[^"]*" class="last">([^<]+)<', drawing)
    assert [text for _, text in found] == ["5.01", "5", "0.02", "0"]
    heights = [float(y) for y, _ in found]
    assert min(b - a for a, b in pairwise(heights)) >= 10.9
    assert max(heights) <= 160


def test_values_are_read_on_hovering_without_scripts() -> None:
    lines = [Line([(0, 1.0), (10, 2.0)], "--a", "one"), Line([(10, 31.46)], "--b", "two")]
    drawing = line_chart(lines, Figure("t"), "steps", 10)
    assert re.findall(r"<title>([^<]+)</title>", drawing) == ["steps 0\none 1", "steps 10\none 2\ntwo 31.5"]
    many = chart([(float(i), float(i)) for i in range(5000)])
    assert 50 <= many.count("<title>") <= 60


def test_references_are_lines_and_bands_inside_the_chart() -> None:
    points = [(0.0, 4.0), (9.0, 5.0)]
    drawing = chart(points, references=[Reference(8.0, name="chance", color="--soft"), Reference(band=(4.5, math.inf))])
    assert "8" in ticks(drawing)
    assert ">chance</text>" in drawing
    assert "green: healthy" in drawing
    top, height = re.findall(r'<rect y="([\d.]+)" height="([\d.]+)"', drawing)[0]
    assert float(top) == 6
    assert 0 < float(height) < 150
    assert "healthy" not in chart(points)


def test_ticks_are_short() -> None:
    assert [number(value) for value in (0, 0.05, 1500, 20_000, 1_250_000, 1e-6, 0.30000000000000004)] == [
        "0", "0.05", "1,500", "20,000", "1.25M", "10⁻⁶", "0.3",
    ]  # fmt: skip
