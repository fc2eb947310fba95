"""Parts of the report about features: galleries of nearest neighbours, and maps."""

from collections.abc import Sequence

import numpy as np

from sslight.report.page import Html, element, picture, together
from sslight.report.run.feature_space import IntArray, SampledFeatures, neighbors_of_the_same_class, principal_plane

_MAP_SIDE, _MARGIN = 400, 10
_NAMED_CLASSES = 12
_COUNTED = 5


def galleries(sampled: Sequence[SampledFeatures], run_names: Sequence[Html]) -> list[Html]:
    """For each query the nearest images of every run, and how many are of its class where classes are known."""
    parts: list[Html] = []
    for group in _same_images(sampled):
        first = group[0]
        ring = "" if first.classes is None else " A ring marks neighbours of the query's class."
        text = (
            f"Left a query, beside it the most similar of {len(first.names):,} images ({first.data}) with the cosine "
            f"of the features, the nearest first. Queries are drawn, not chosen.{ring}"
        )
        parts.append(element("p", text, class_="soft"))
        parts.append(element("ul", *(element("li", *_agreement(one, run_names)) for one in group), class_="plain"))
        for row, query in enumerate(first.queries.tolist()):
            rows = [
                element(
                    "div",
                    *([element("div", run_names[one.run], class_="soft")] if len(run_names) > 1 else []),
                    element("div", *_neighbors(one, row), class_="row"),
                    class_="of-run" if len(run_names) > 1 else "alone",
                )
                for one in group
            ]
            shown = [_thumbnail(first, query, "query", ""), element("div", *rows, class_="rows")]
            parts.append(element("div", *shown, class_="near"))
    return parts


def maps(sampled: Sequence[SampledFeatures], run_names: Sequence[Html]) -> list[Html]:
    """The sample in the plane in which its features vary most, for every run."""
    parts: list[Html] = []
    for group in _same_images(sampled):
        first = group[0]
        named = _named_classes(first)
        parts.append(element("p", _what_a_map_is(first, len(named)), class_="soft"))
        if first.classes is not None:
            keys = [
                element("span", _dot(position), first.classes[label]) for position, label in enumerate(named.tolist())
            ]
            others = len(np.unique(first.labels)) - len(named) if first.labels is not None else 0
            if others:
                keys.append(element("span", element("span", class_="dot other"), f"{others} other classes"))
            parts.append(element("div", *keys, class_="legend"))
        drawn = [_map(one, named, run_names[one.run] if len(run_names) > 1 else Html("")) for one in group]
        parts.append(element("div", *drawn, class_="cards maps"))
    return parts


def _same_images(sampled: Sequence[SampledFeatures]) -> list[list[SampledFeatures]]:
    """Runs that were shown the same images, together."""
    groups: dict[tuple[str, tuple[str, ...]], list[SampledFeatures]] = {}
    for one in sampled:
        groups.setdefault((one.data, tuple(one.names)), []).append(one)
    return list(groups.values())


def _agreement(one: SampledFeatures, run_names: Sequence[Html]) -> list[str]:
    name: list[str] = [run_names[one.run], " "] if len(run_names) > 1 else []
    if one.labels is None:
        return [*name, f"weights from {one.weights}"]
    share, chance = neighbors_of_the_same_class(one.features, one.labels, _COUNTED)
    return [
        *name,
        "neighbour precision ",
        element("b", f"{100 * share:.0f} %"),
        f", chance {100 * chance:.1f} %: of the {_COUNTED} nearest of all these images, how many are of the image's "
        f"class; not an accuracy (weights from {one.weights})",
    ]


def _neighbors(one: SampledFeatures, row: int) -> list[Html]:
    query = int(one.queries[row])
    figures = []
    for neighbor, cosine in zip(one.neighbors[row].tolist(), one.cosines[row].tolist(), strict=True):
        same = one.labels is not None and one.labels[neighbor] == one.labels[query]
        figures.append(_thumbnail(one, neighbor, f"{cosine:.2f}", "same" if same else ""))
    return figures


def _thumbnail(one: SampledFeatures, position: int, caption: str, kind: str) -> Html:
    pixels, name = one.thumbnails[position], one.names[position]
    small = "small" if len(pixels) <= 64 else ""
    same = ", of the same class" if kind == "same" else ""
    return element(
        "figure",
        picture(pixels, f"{name}{same}", title=name),
        element("figcaption", caption),
        class_=" ".join(word for word in ("thumb", kind, small) if word),
    )


def _named_classes(one: SampledFeatures) -> IntArray:
    """Up to twelve of the classes, evenly spread over their sorted names."""
    if one.labels is None:
        return np.zeros(0, np.int64)
    present = np.unique(one.labels)
    if len(present) <= _NAMED_CLASSES:
        return present
    return present[np.linspace(0, len(present) - 1, _NAMED_CLASSES).round().astype(np.int64)]


def _what_a_map_is(one: SampledFeatures, num_named: int) -> str:
    color = "" if one.classes is None else " Colour: class."
    if one.labels is not None and num_named < len(np.unique(one.labels)):
        color = f" Colour: {num_named} of the classes, evenly spread over their names; the others are grey."
    return (
        f"{len(one.names):,} images ({one.data}), their features of length 1 seen along the two directions in which "
        f"they vary most (principal components); what lies apart in others looks close here.{color}"
    )


def _dot(position: int) -> Html:
    return element("span", class_="dot", style=f"--colour: var(--class-{position})")


def _map(one: SampledFeatures, named: IntArray, name: Html) -> Html:
    places, share = principal_plane(one.features)
    low, extent = places.min(0), max(float(np.ptp(places, axis=0).max()), 1e-9)
    center = low + np.ptp(places, axis=0) / 2
    scaled = (places - center) / extent * (_MAP_SIDE - 2 * _MARGIN) + _MAP_SIDE / 2
    colors = {int(label): position for position, label in enumerate(named)}
    gray, colored = [], []
    for position, (x, y) in enumerate(scaled.tolist()):
        label = None if one.labels is None else int(one.labels[position])
        at = {"cx": f"{x:.1f}", "cy": f"{_MAP_SIDE - y:.1f}"}
        title = element("title", one.names[position])
        if label in colors:
            style = f"--colour: var(--class-{colors[label]})"
            colored.append(element("circle", title, **at, r=4, class_="image", style=style))
        else:
            gray.append(element("circle", title, **at, r=3, class_="image other"))
    drawing = element(
        "svg",
        together([*gray, *colored]),
        viewBox=f"0 0 {_MAP_SIDE} {_MAP_SIDE}",
        role="img",
        aria_label=f"map of {len(one.names)} images",
    )
    caption = element(
        "figcaption", name, " " if name else "", f"{100 * share:.0f} % of the variance lies in this plane"
    )
    return element("figure", caption, drawing, class_="map")
