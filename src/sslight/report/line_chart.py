"""Curves as SVG inside a page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sslight.report.page import Html, element, together

Values = npt.NDArray[np.float64]

_WIDTH, _HEIGHT, _LEFT, _TOP, _BELOW = 380, 150, 44, 6, 34
_MOST_POINTS = 240
_FEW_POINTS = 12  # marked one by one


@dataclass(frozen=True)
class Line:
    """A curve: its points, x ascending and y NaN for a gap, and its colour, a variable of the page's style."""

    points: Sequence[tuple[float, float]]
    color: str


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    detail: str,
    x_label: str,
    x_end: float,
    smooth: bool = False,
    percent: bool = False,
) -> Html:
    """Curves over one another, from x = 0 to ``x_end``.

    The y axis is logarithmic where all values are positive and their largest is over 50 times the smallest, but not
    for shares.

    Args:
        lines: The curves.
        title: What they show.
        detail: Unit, or what the figure means.
        x_label: What x is.
        x_end: Right end of the axis.
        smooth: Draw the means of neighbouring points over the points.
        percent: y values are shares.
    """
    values = np.array([y for line in lines for _, y in line.points])
    values = values[np.isfinite(values)]
    log = bool(not percent and len(values) and values.min() > 0 and values.max() > 50 * values.min())
    low, high, ticks = _log_axis(values) if log else _axis(values)
    x_scale = (_WIDTH - _LEFT) / (x_end or 1)

    def y_of(value: float) -> float:
        value = math.log10(value) if log else value
        return _TOP + _HEIGHT * (1 - (value - low) / (high - low))

    shapes: list[Html] = []
    for tick in ticks:
        y = f"{y_of(tick):.1f}"
        shapes.append(element("line", x1=_LEFT, x2=_WIDTH, y1=y, y2=y, class_="grid"))
        text = f"{100 * tick:g} %" if percent else number(tick)
        shapes.append(element("text", text, x=_LEFT - 6, y=f"{y_of(tick) + 3.5:.1f}", text_anchor="end"))
    for tick in _axis(np.array([0.0, x_end]), most=5)[2]:
        if tick <= x_end:
            x = _LEFT + tick * x_scale
            anchor = "end" if x > _WIDTH - 12 else "middle"
            shapes.append(element("text", number(tick), x=f"{x:.1f}", y=_TOP + _HEIGHT + 15, text_anchor=anchor))
    shapes.append(element("text", x_label, x=(_LEFT + _WIDTH) / 2, y=_TOP + _HEIGHT + 30, text_anchor="middle"))
    for line in lines:
        places = [(_LEFT + x * x_scale, y_of(y) if math.isfinite(y) else math.nan) for x, y in line.points]
        shapes += _curve(places, f"--colour: var({line.color})", smooth=smooth)
    height = _TOP + _HEIGHT + _BELOW
    drawing = element(
        "svg", together(shapes), viewBox=f"0 0 {_WIDTH} {height}", role="img", aria_label=f"curve: {title}"
    )
    caption = element("figcaption", element("b", title), element("br"), f"{detail} (log)".strip() if log else detail)
    return element("figure", caption, drawing, class_="chart")


def number(value: float) -> str:
    """A tick as a short text: ``0``, ``0.05``, ``1,500``, ``20k``, ``1e-06``."""
    if value and (abs(value) >= 1e7 or abs(value) < 1e-4):
        return f"{value:.0e}"
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{round(value, 9):,g}" if value < 1e3 else f"{value:,.0f}"


def _curve(places: list[tuple[float, float]], style: str, *, smooth: bool) -> list[Html]:
    known = [place for place in places if math.isfinite(place[1])]
    if not known:
        return []
    if len(known) <= _FEW_POINTS:
        dots = [element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=3, class_="dot-at", style=style) for x, y in known]
        return [element("path", d=_path(places), class_="line", style=style), *dots]
    if not smooth:
        return [element("path", d=_path(_thinned(places)), class_="line", style=style)]
    return [
        element("path", d=_path(_thinned(places)), class_="raw", style=style),
        element("path", d=_path(_thinned(_means(known))), class_="line", style=style),
    ]


def _path(places: Sequence[tuple[float, float]]) -> str:
    """SVG path; it starts anew after a gap."""
    parts, pen_down = [], False
    for x, y in places:
        if math.isfinite(y):
            parts.append(f"{'L' if pen_down else 'M'}{x:.1f} {y:.1f}")
        pen_down = math.isfinite(y)
    return "".join(parts)


def _thinned(places: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most about ``_MOST_POINTS`` points: of each stretch of many the lowest and the highest, as they come."""
    if len(places) <= _MOST_POINTS:
        return places
    kept: list[tuple[float, float]] = []
    for part in np.array_split(np.arange(len(places)), _MOST_POINTS // 2):
        heights = [places[i][1] for i in part.tolist()]
        if not all(map(math.isfinite, heights)):
            kept.append((places[int(part[0])][0], math.nan))
        if any(map(math.isfinite, heights)):
            ends = {int(part[int(np.nanargmin(heights))]), int(part[int(np.nanargmax(heights))])}
            kept += [places[i] for i in sorted(ends)]
    return kept


def _means(places: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means over about a twentieth of the points around each; at the start, where curves are steep, over fewer."""
    half = max(1, len(places) // 40)
    sums = np.cumsum([0.0, *(y for _, y in places)])
    means = []
    for i, (x, _) in enumerate(places):
        first, after = max(i - half, 0), min(i + min(half, i) + 1, len(places))
        means.append((x, float((sums[after] - sums[first]) / (after - first))))
    return means


def _axis(values: Values, most: int = 5) -> tuple[float, float, list[float]]:
    """Lower end, upper end and ticks at round numbers."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if 0 <= low < 0.4 * high:
        low = 0.0
    if high - low < 1e-9 * max(abs(high), abs(low), 1e-30):
        low, high = (low * 0.5, high * 1.5) if low > 0 else (low - 1.0, high + 1.0)
    rough = (high - low) / (most - 1)
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return first * step, last * step, [step * i for i in range(first, last + 1)]


def _log_axis(values: Values) -> tuple[float, float, list[float]]:
    """The same with a logarithmic axis: ends as exponents, ticks at powers of ten."""
    low, high = math.floor(math.log10(values.min()) + 1e-6), math.ceil(math.log10(values.max()) - 1e-6)
    every = max(1, math.ceil((high - low) / 5))
    return float(low), float(high), [10.0**exponent for exponent in range(low, high + 1, every)]
