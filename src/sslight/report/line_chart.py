"""Curves as SVG inside a page."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sslight.report.page import Html, drawing, element

Values = npt.NDArray[np.float64]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BELOW = 380, 150, 44, 46, 6, 34
_END = _WIDTH - _RIGHT
_MOST_POINTS, _MOST_STRIPS = 240, 60
_FEW_POINTS = 12  # marked one by one
_LINE = 11  # height of a text


@dataclass(frozen=True)
class Figure:
    """What a chart shows, and how.

    ``smooth`` draws means of neighboring points over the points, ``percent`` shows shares in percent, and ``linear``
    keeps the y axis linear.
    """

    title: str
    detail: str = ""
    smooth: bool = True
    percent: bool = False
    linear: bool = False


@dataclass(frozen=True)
class Line:
    """A curve: its points, x ascending and y NaN for a gap, its color (a variable of the page's style) and name."""

    points: Sequence[tuple[float, float]]
    color: str
    name: str = ""


@dataclass(frozen=True)
class Reference:
    """What a curve is read against: a dashed line at a value, a band from one to another (or inf), or both."""

    value: float | None = None
    band: tuple[float, float] | None = None
    name: str = ""
    color: str = "--healthy"


def line_chart(
    lines: Sequence[Line], figure: Figure, x_label: str, x_end: float, references: Sequence[Reference] = ()
) -> Html:
    """Curves over one another, from x = 0 to ``x_end``, each with its last value; the values at a place on hovering.

    The y axis is logarithmic if all values are positive and the largest is over 50 times the smallest, unless the
    figure says otherwise. A band without a value does not widen it.
    """
    percent = figure.percent
    compared = [y for r in references for y in (r.value, *(r.band or ())) if r.value is not None and y is not None]
    values = np.array([y for line in lines for _, y in line.points] + compared)
    values = values[np.isfinite(values)]
    log = bool(not (percent or figure.linear) and len(values) and values.min() > 0 and values.max() > 50 * values.min())
    low, high, ticks = _log_axis(values) if log else _axis(values)

    def x_of(value: float) -> float:
        return _LEFT + value * (_END - _LEFT) / (x_end or 1)

    def y_of(value: float) -> float:
        if log:
            value = math.log10(value) if value > 0 else low
        return _TOP + _HEIGHT * (1 - (min(max(value, low), high) - low) / (high - low))

    shapes = [shape for reference in references for shape in _reference(reference, y_of)]
    for tick in ticks:
        y = f"{y_of(tick):.1f}"
        shapes.append(element("line", x1=_LEFT, x2=_END, y1=y, y2=y, class_="grid"))
        text = f"{100 * tick:g} %" if percent else number(tick)
        shapes.append(element("text", text, x=_LEFT - 6, y=f"{y_of(tick) + 3.5:.1f}", text_anchor="end"))
    for tick in _axis(np.array([0.0, x_end]))[2]:
        if tick <= x_end:
            text = number(tick)
            shapes.append(element("text", text, x=f"{x_of(tick):.1f}", y=_TOP + _HEIGHT + 15, text_anchor="middle"))
    shapes.append(element("text", x_label, x=(_LEFT + _END) / 2, y=_TOP + _HEIGHT + 30, text_anchor="middle"))
    for line in lines:
        places = [(x_of(x), y_of(y) if math.isfinite(y) else math.nan) for x, y in line.points]
        shapes += _curve(places, f"--colour: var({line.color})", smooth=figure.smooth)
    shapes += [*_last_values(lines, y_of, percent), *_strips(lines, x_of, x_label, percent)]
    curves = drawing(shapes, (0, 0, _WIDTH, _TOP + _HEIGHT + _BELOW), f"curve: {figure.title}")
    green = "· green: healthy" if any(reference.color == "--healthy" for reference in references) else ""
    details = " ".join(filter(None, (figure.detail, "(log)" if log else "", green)))
    caption = element("figcaption", element("b", figure.title), element("br"), details)
    return element("figure", caption, curves, class_="chart")


def number(value: float) -> str:
    """A tick as a short text: ``0``, ``0.05``, ``1,500``, ``20,000``, ``1.25M``, ``5·10⁻⁶``."""
    if value and (abs(value) >= 1e9 or abs(value) < 1e-4):
        digits, _, exponent = f"{value:.0e}".partition("e")
        power = f"10{str(int(exponent)).translate(_RAISED)}"
        return power if digits == "1" else f"{digits}·{power}"
    return f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{round(value, 9):,.12g}"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _value(value: float, percent: bool) -> str:
    if percent:
        return f"{100 * value:.0f} %"
    if abs(value) < 1000:
        return number(float(f"{value:.3g}"))
    return f"{value:,.0f}" if abs(value) < 1e6 else f"{value:.2e}"


def _reference(reference: Reference, y_of: Callable[[float], float]) -> list[Html]:
    shapes, style = [], f"--colour: var({reference.color})"
    if reference.band is not None:
        bottom, top = map(y_of, reference.band)
        upright = {"y": f"{top:.1f}", "height": f"{bottom - top:.1f}"}
        shapes.append(element("rect", **upright, x=_LEFT, width=_END - _LEFT, class_="range", style=style))
    if reference.value is not None:
        y = y_of(reference.value)
        shapes.append(element("line", x1=_LEFT, x2=_END, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="mark", style=style))
        above = y - 3 if y > _TOP + 2 * _LINE else y + _LINE
        shapes.append(element("text", reference.name, x=_END - 2, y=f"{above:.1f}", text_anchor="end"))
    return shapes


def _last_values(lines: Sequence[Line], y_of: Callable[[float], float], percent: bool) -> list[Html]:
    """The last value of each curve beside its end, none over another."""
    ends = [([y for _, y in line.points if math.isfinite(y)][-1:], line.color) for line in lines]
    known = sorted((y_of(end[0]), end[0], color) for end, color in ends if end)
    places: list[float] = []
    for y, _, _ in known:
        places.append(max(y, places[-1] + _LINE) if places else y)
    beyond = max(0.0, *places, _TOP + _HEIGHT) - _TOP - _HEIGHT
    texts = []
    for place, (_, value, color) in zip(places, known, strict=True):
        at, style = f"{place - beyond + 3.5:.1f}", f"fill: var({color})"
        texts.append(element("text", _value(value, percent), x=_END + 6, y=at, style=style, class_="last"))
    return texts


def _strips(lines: Sequence[Line], x_of: Callable[[float], float], x_label: str, percent: bool) -> list[Html]:
    """Upright strips, unseen until the mouse is over one, which then tells the values there."""
    known = [np.array([point for point in line.points if math.isfinite(point[1])]).reshape(-1, 2) for line in lines]
    places = np.unique(np.concatenate([points[:, 0] for points in known])).tolist()
    shown = places[:: math.ceil(len(places) / _MOST_STRIPS) or 1]
    edges = [float(_LEFT), *((x_of(a) + x_of(b)) / 2 for a, b in pairwise(shown)), float(_END)]
    strips = []
    for x, left, right in zip(shown, edges, edges[1:], strict=False):
        texts = [f"{x_label} {x:,.0f}"]
        for line, points in zip(lines, known, strict=True):
            nearest = points[max(0, int(np.searchsorted(points[:, 0], x, side="right")) - 1)] if len(points) else None
            if nearest is not None and left <= x_of(nearest[0]) <= right:
                texts.append(f"{line.name} {_value(float(nearest[1]), percent)}".strip())
        level = {"x": f"{left:.1f}", "width": f"{max(right - left, 0):.1f}"}
        title = element("title", "\n".join(texts))
        strips.append(element("rect", title, **level, y=_TOP, height=_HEIGHT, class_="at"))
    return strips


def _curve(places: list[tuple[float, float]], style: str, *, smooth: bool) -> list[Html]:
    known = [place for place in places if math.isfinite(place[1])]
    few = len(known) <= _FEW_POINTS
    shown = _path(places if few else _thinned(places))
    raw = element("path", d=shown, class_="raw" if smooth and not few else "line", style=style)
    if few:
        dots = [element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=3, class_="dot-at", style=style) for x, y in known]
        return [raw, *dots]
    return [raw, element("path", d=_path(_thinned(_means(known))), class_="line", style=style)] if smooth else [raw]


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


def _axis(values: Values) -> tuple[float, float, list[float]]:
    """Lower end, upper end and ticks at round numbers."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if 0 <= low < 0.4 * high:
        low = 0.0
    if high - low < 1e-9 * max(abs(high), abs(low), 1e-30):
        low, high = (low * 0.5, high * 1.5) if low > 0 else (low - 1.0, high + 1.0)
    rough = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return first * step, last * step, [step * i for i in range(first, last + 1)]


def _log_axis(values: Values) -> tuple[float, float, list[float]]:
    """The same with a logarithmic axis: ends as exponents, ticks at powers of ten."""
    low, high = math.floor(math.log10(values.min()) + 1e-6), math.ceil(math.log10(values.max()) - 1e-6)
    every = max(1, math.ceil((high - low) / 5))
    return float(low), float(high), [10.0**exponent for exponent in range(low, high + 1, every)]
