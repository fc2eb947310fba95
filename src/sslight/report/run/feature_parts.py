"""Parts of the report about features: galleries of nearest neighbors, and maps."""

from collections.abc import Sequence

import numpy as np

from sslight.report.page import Html, dot, drawing, element, picture
from sslight.report.run.feature_space import (
    IntArray,
    SampledFeatures,
    evenly,
    neighbors_of_the_same_class,
    principal_plane,
)

_MAP_SIDE, _MARGIN = 400, 10
_NAMED_CLASSES = 12
_COUNTED = 5


def galleries(sampled: Sequence[SampledFeatures], run_names: Sequence[Html]) -> list[Html]:
    """For each query the nearest images of every run, and how many are of its class where classes are known."""
    parts: list[Html] = []
    for group in _same_images(sampled):
        first = group[0]
        ring = "" if first.classes is None else f" A green frame marks images of the query's class, {_such_as(first)}."
        text = (
            f"Each query with its most similar images among {len(first.names):,} ({first.data}), nearest first, and "
            f"the cosine of their features. Queries are drawn at random.{ring}"
        )
        parts.append(element("p", text, class_="soft"))
        named = _named(group, run_names)
        precisions = [element("li", *name, " " if name else "", *_precision(one)) for one, name in named]
        parts.append(element("ul", *precisions, class_="plain"))
        for query in first.queries.tolist():
            rows = []
            for one, name in named:
                row = [*(element("div", word, class_="soft") for word in name), _neighbors(one, query)]
                rows.append(element("div", *row, class_="of-run" if name else "alone"))
            shown = [_thumbnail(first, query, "query", ""), element("div", *rows, class_="rows")]
            parts.append(element("div", *shown, class_="near"))
    return parts


def maps(sampled: Sequence[SampledFeatures], run_names: Sequence[Html]) -> list[Html]:
    """The sample in the plane in which its features vary most, for every run."""
    parts: list[Html] = []
    for group in _same_images(sampled):
        first = group[0]
        present = np.zeros(0, np.int64) if first.labels is None else np.unique(first.labels)
        named = evenly(present, _NAMED_CLASSES)
        others = len(present) - len(named)
        color = "" if first.classes is None else " Color: class."
        if others:
            color = f" Color: {len(named)} of the classes, evenly spread over their names; the others are gray."
        text = (
            f"The normalized features of {len(first.names):,} images ({first.data}) along their first two principal "
            f"components. Images that look close here may be far apart in other directions.{color}"
        )
        parts.append(element("p", text, class_="soft"))
        if first.classes is not None:
            keys = [
                element("span", dot(f"--class-{position}"), first.classes[label])
                for position, label in enumerate(named.tolist())
            ]
            if others:
                keys.append(element("span", element("span", class_="dot other"), f"{others} other classes"))
            parts.append(element("div", *keys, class_="legend"))
        drawn = [_map(one, named, [*name, " "] if name else []) for one, name in _named(group, run_names)]
        parts.append(element("div", *drawn, class_="cards maps"))
    return parts


def _same_images(sampled: Sequence[SampledFeatures]) -> list[list[SampledFeatures]]:
    """Runs that were shown the same images, together."""
    groups: dict[tuple[str, tuple[str, ...]], list[SampledFeatures]] = {}
    for one in sampled:
        groups.setdefault((one.data, tuple(one.names)), []).append(one)
    return list(groups.values())


def _named(
    group: Sequence[SampledFeatures], run_names: Sequence[Html]
) -> list[tuple[SampledFeatures, list[Html | str]]]:
    """Each with its run's name; of one run the network before training and, last, the one after it."""
    if len(run_names) > 1:
        return [(one, [run_names[one.run]]) for one in group]
    if len(group) == 1:
        return [(group[0], [])]
    return [(one, ["pre-trained" if one is group[-1] else one.weights]) for one in group]


def _precision(one: SampledFeatures) -> list[str]:
    if one.labels is None:
        return [f"weights: {one.weights}"]
    share, chance = neighbors_of_the_same_class(one.neighbors[:, :_COUNTED], one.labels)
    return [
        "neighbor precision ",
        element("b", f"{100 * share:.0f} %"),
        f" (chance {100 * chance:.1f} %): how many of an image's {_COUNTED} nearest images have its class; not an "
        f"accuracy (weights: {one.weights})",
    ]


def _such_as(one: SampledFeatures) -> str:
    """A few classes: where they are folders such as albums, that shows that frames and precision say nothing."""
    assert one.classes is not None
    assert one.labels is not None
    classes = [one.classes[label] for label in np.unique(one.labels).tolist()]
    return f"such as {' or '.join(map(str, classes[:2]))}" if len(classes) > 1 else f"{classes[0]} for all"


def _neighbors(one: SampledFeatures, query: int) -> Html:
    figures = []
    for neighbor, cosine in zip(one.neighbors[query].tolist(), one.cosines[query].tolist(), strict=True):
        same = one.labels is not None and one.labels[neighbor] == one.labels[query]
        figures.append(_thumbnail(one, neighbor, f"{cosine:.2f}", "same" if same else ""))
    return element("div", *figures, class_="row")


def _thumbnail(one: SampledFeatures, position: int, caption: str, kind: str) -> Html:
    pixels, name = one.thumbnails[position], one.names[position]
    image = picture(pixels, f"{name}, of the same class" if kind == "same" else name, title=name)
    classes = ("thumb", kind, "small" if len(pixels) <= 64 else "")
    return element("figure", image, element("figcaption", caption), class_=" ".join(filter(None, classes)))


def _map(one: SampledFeatures, named: IntArray, heading: Sequence[str]) -> Html:
    places, share = principal_plane(one.features)
    low, extent = places.min(0), np.ptp(places, axis=0)
    center = low + extent / 2
    scaled = (places - center) / max(float(extent.max()), 1e-9) * (_MAP_SIDE - 2 * _MARGIN) + _MAP_SIDE / 2
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
    dots = drawing([*gray, *colored], (0, 0, _MAP_SIDE, _MAP_SIDE), f"map of {len(one.names)} images")
    caption = element("figcaption", *heading, f"{100 * share:.0f} % of the variance lies in this plane")
    return element("figure", caption, dots, class_="map")
