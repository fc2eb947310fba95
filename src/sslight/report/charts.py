"""Charts as SVG inside a page; colours come from its style, so that they follow light and dark."""

from collections.abc import Sequence

from sslight.report.page import Html, element, together

_WIDTH, _HEIGHT, _BELOW = 380, 130, 36


def histogram(
    series: Sequence[Sequence[float]], *, ticks: Sequence[tuple[float, str]], label: str, mark: float | None = None
) -> Html:
    """Histograms with common, equally wide bins over one another, as outlines.

    Args:
        series: Share in each bin, one sequence for each series; series i has the colour ``--series-i``.
        ticks: Places on the axis, from 0 (left) to 1 (right), and their texts.
        label: What the axis shows, with its unit.
        mark: A place from 0 to 1 with a dashed line.
    """
    top = max((max(shares) for shares in series), default=0.0) or 1.0
    outlines = [
        element("path", d=_outline(shares, top), class_="series", style=f"--colour: var(--series-{number % 6})")
        for number, shares in enumerate(series)
    ]
    axis = element("line", x1=0, x2=_WIDTH, y1=_HEIGHT, y2=_HEIGHT, class_="axis")
    dashes = [] if mark is None else [_upright(mark)]
    anchors = {0.0: "start", 1.0: "end"}
    texts = [
        element("text", text, x=f"{place * _WIDTH:g}", y=_HEIGHT + 15, text_anchor=anchors.get(place, "middle"))
        for place, text in ticks
    ]
    name = element("text", label, x=_WIDTH / 2, y=_HEIGHT + 32, text_anchor="middle")
    drawing = element(
        "svg",
        together([axis, *dashes, *outlines, *texts, name]),
        viewBox=f"0 -4 {_WIDTH} {_HEIGHT + _BELOW + 4}",
        role="img",
        aria_label=f"histogram: {label}",
    )
    return element("figure", drawing, class_="chart")


def _outline(shares: Sequence[float], top: float) -> str:
    step = _WIDTH / len(shares)
    corners = [f"M0 {_HEIGHT}"]
    for number, share in enumerate(shares):
        corners.append(f"V{_HEIGHT * (1 - share / top):.1f}H{(number + 1) * step:.1f}")
    return "".join([*corners, f"V{_HEIGHT}"])


def _upright(place: float) -> Html:
    x = f"{place * _WIDTH:g}"
    return element("line", x1=x, x2=x, y1=0, y2=_HEIGHT, class_="mark")
