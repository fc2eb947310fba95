"""The page of ``sslight views``: whether views match, in words, in numbers and in pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

from sslight.report.page import VIEWS, Html, breakable, dot, drawing, element, page, sentences, table, together
from sslight.report.views.sheet import ShownImage, image_sheet, views_legend
from sslight.report.views.table import footnote, views_table

Content = Mapping[str, Any]

_WIDTH, _HEIGHT, _BELOW = 380, 130, 36  # of a histogram
_RATIO_TICKS = ((0.0, "¼"), (0.25, "½"), (0.5, "1"), (0.75, "2"), (1.0, "4"))
_SHARE_TICKS = ((0.0, "0 %"), (0.25, "25"), (0.5, "50"), (0.75, "75"), (1.0, "100 %"))


def views_page(content: Content, images: Sequence[ShownImage]) -> str:
    """The page from the numbers (as in ``views.json``) and images with views in the order of ``content["recipes"]``."""
    recipes = content["recipes"]
    headings = [_name(number, recipe, True) for number, recipe in enumerate(recipes)]
    subtitle = (
        f"What a network sees of {content['images']['number']:,} images in the first epoch of a run with "
        f"seed {content['seed']}, before normalization."
    )
    return page(
        f"Views of {content['data']}",
        element("p", subtitle, class_="soft"),
        element("div", *(_card(number, recipe) for number, recipe in enumerate(recipes)), class_="cards"),
        element("h2", "In pictures"),
        views_legend(),
        *(image_sheet(image, headings) for image in images),
        element("h2", "In numbers"),
        table(["", *headings], views_table(recipes)),
        element("p", footnote(content), class_="soft"),
        *_charts(recipes),
        *_unreadable(content),
        made_by=VIEWS,
    )


def _name(number: int, recipe: Content, with_changes: bool) -> Html:
    changes = [element("br"), *_assignments(recipe["changes"])] if with_changes and recipe["changes"] else []
    better = "better matched: " if recipe["better"] else ""
    return together([dot(f"--series-{number % 6}"), better, breakable(recipe["name"]), *changes])


def _card(number: int, recipe: Content) -> Html:
    mismatches = recipe["mismatches"]
    if mismatches:
        word = "1 mismatch" if len(mismatches) == 1 else f"{len(mismatches)} mismatches"
        verdict = [element("div", word, class_="warn"), element("ul", *map(_mismatch, mismatches))]
    else:
        verdict = [element("div", "No mismatch", class_="good"), element("p", recipe["summary"])]
    return element("section", element("h3", _name(number, recipe, True)), *verdict, class_="card")


def _mismatch(mismatch: Content) -> Html:
    sentence = mismatch["sentence"]
    proposal = [element("div", "Try ", *_assignments(mismatch["proposal"]))] if mismatch["proposal"] else []
    return element("li", sentence[0].upper() + sentence[1:], *proposal)


def _assignments(words: Sequence[str]) -> list[Html]:
    return [together([element("code", word), " "]) for word in words]


def _charts(recipes: Sequence[Content]) -> list[Html]:
    drawn = []
    for key, ticks, label, mark in (
        ("local_in_global", _SHARE_TICKS, "share of a local view inside a global view", None),
        ("object_size_ratio", _RATIO_TICKS, "object size, local : global", 0.5),
    ):
        series = [(recipe["statistics"][key] or {}).get("histogram", (0.0,)) for recipe in recipes]
        if any(sum(shares) for shares in series):
            drawn.append(histogram(series, ticks=ticks, label=label, mark=mark))
    if not drawn:
        return []
    keys = [element("span", _name(number, recipe, False)) for number, recipe in enumerate(recipes)]
    keys.append(element("span", "height: share of the local–global pairs", class_="soft"))
    legend = element("div", *keys, class_="legend")
    return [element("h2", "Over all draws"), legend, element("div", *drawn, class_="cards")]


def _unreadable(content: Content) -> list[Html]:
    lines = sentences([f"{image['location']}: {image['reason']}" for image in content["images"]["unreadable"]])
    return [element("h2", "Unreadable images, replaced by others"), *lines] if lines else []


def histogram(
    series: Sequence[Sequence[float]], *, ticks: Sequence[tuple[float, str]], label: str, mark: float | None = None
) -> Html:
    """Histograms with common, equally wide bins over one another, as outlines.

    ``ticks`` are places on the axis, from 0 (left) to 1 (right), and their texts; ``mark`` is one with a dashed line.
    """
    top = max((max(shares) for shares in series), default=0.0) or 1.0
    outlines = [
        element("path", d=_outline(shares, top), class_="series", style=f"--colour: var(--series-{number % 6})")
        for number, shares in enumerate(series)
    ]
    shapes = [element("line", x1=0, x2=_WIDTH, y1=_HEIGHT, y2=_HEIGHT, class_="axis")]
    if mark is not None:
        x = f"{mark * _WIDTH:g}"
        shapes.append(element("line", x1=x, x2=x, y1=0, y2=_HEIGHT, class_="mark"))
    anchors = {0.0: "start", 1.0: "end"}
    texts = [
        element("text", text, x=f"{place * _WIDTH:g}", y=_HEIGHT + 15, text_anchor=anchors.get(place, "middle"))
        for place, text in ticks
    ]
    name = element("text", label, x=_WIDTH / 2, y=_HEIGHT + 32, text_anchor="middle")
    box = (0, -4, _WIDTH, _HEIGHT + _BELOW + 4)
    return element("figure", drawing([*shapes, *outlines, *texts, name], box, f"histogram: {label}"), class_="chart")


def _outline(shares: Sequence[float], top: float) -> str:
    step = _WIDTH / len(shares)
    corners = [f"M0 {_HEIGHT}"]
    for number, share in enumerate(shares):
        corners.append(f"V{_HEIGHT * (1 - share / top):.1f}H{(number + 1) * step:.1f}")
    return "".join([*corners, f"V{_HEIGHT}"])
