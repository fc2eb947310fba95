"""What a classifier gets wrong: its classes, the confusion matrix, and the worst images."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from sslight.report.page import Html, UInt8Array, breakable, drawing, element, picture, table

Content = Mapping[str, Any]
Thumbnails = Mapping[str, UInt8Array]
"""Pictures by the names of their images."""

_LISTED = 20
_SHOWN_LABELS = 12
_WITH_NUMBERS = 12  # classes whose matrix has room for numbers
_CELL, _SMALL_CELL, _LONGEST = 46, 12, 22  # px, px, letters of a class name


def mistakes_parts(content: Content, thumbnails: Thumbnails, *, name: str) -> list[Html]:
    """What a ``results.json`` says of single classes and images; the table of all classes is folded away.

    ``name`` is what the page calls the classifier.
    Raises KeyError, TypeError, ValueError or AttributeError if it is damaged.
    """
    counts = {str(name): int(one["images"]) for name, one in content.get("per_class", {}).items()}
    if not counts:
        return []
    pairs = [_pair(one, counts) for one in content.get("confusions", [])]
    confused = [table(["images of", "taken for", "images", "of its images"], pairs)] if pairs else []
    worst = content.get("worst_images", [])
    shown: list[Html] = []
    if matrix := content.get("confusion_matrix"):
        shown += [
            element("h4", "Confusion matrix"),
            *_matrix(matrix, list(map(str, content["details"]["train_images"]))),
        ]
    if shown or worst:
        shown += [element("h4", "Most confused classes"), *confused] if confused else []
        shown += _worst_by_label(content, worst, thumbnails) if _of_labels(content) else _worst(worst, thumbnails)
        shown, confused = [element("h3", f"What {name} gets wrong"), *shown], []
    return [*shown, _classes(content, confused)]


def _of_labels(content: Content) -> bool:
    return "map" in content["accuracy"]


def _classes(content: Content, confused: Sequence[Html]) -> Html:
    rows = [
        (str(name), float(one["accuracy"]), f"{int(one['images']):,}") for name, one in content["per_class"].items()
    ]
    rows.sort(key=lambda row: row[1])
    worst = ", ".join(f"{name} {accuracy:.0f} %" for name, accuracy, _ in rows[:3])
    summary = f"By class ({content['protocol']}, {content['checkpoint']['path']}); the worst: {worst}"
    figure = "average precision [%]" if _of_labels(content) else "top-1 [%]"
    cells = [[name, f"{accuracy:.1f}", images] for name, accuracy, images in rows]
    inside = table(["class, worst first", figure, "images"], cells)
    return element("details", element("summary", summary), inside, *confused)


def _pair(one: Content, counts: Mapping[str, int]) -> list[str]:
    name, images = str(one["class"]), int(one["images"])
    return [name, str(one["taken_for"]), f"{images:,}", f"{100 * images / counts[name]:.0f} %"]


def _matrix(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> list[Html]:
    """A heat map with the right classes in rows; a color says which share of its row a cell has."""
    numbers = len(classes) <= _WITH_NUMBERS
    cell = _CELL if numbers else _SMALL_CELL
    margin = 10 + 6.8 * min(_LONGEST, max(map(len, classes)))
    side = cell * len(classes)
    shapes = [element("rect", x=0, y=0, width=side, height=side, class_="frame")]
    for position, name in enumerate(classes):
        short = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
        middle = cell * (position + 0.5)
        places = f"translate(-5 {middle:g})", f"translate({middle:g} -5) rotate(90)"
        shapes += [element("text", short, element("title", name), transform=place) for place in places]
    for row, (counted, name) in enumerate(zip(matrix, classes, strict=True)):
        total = sum(map(int, counted))
        for column, number in enumerate(map(int, counted)):
            if not number:
                continue
            title = f"{name} taken for {classes[column]}: {number:,} of {total:,}"
            kind, x, y = "right" if row == column else "wrong", cell * column, cell * row
            shade = f"{0.12 + 0.68 * number / total:.2f}"
            box = {"x": x, "y": y, "width": cell, "height": cell}
            shapes.append(element("rect", element("title", title), **box, class_=kind, fill_opacity=shade))
            if numbers:
                center = f"translate({x + cell / 2:g} {y + cell / 2:g})"
                shapes.append(element("text", f"{number:,}", transform=center, class_="number"))
    whole = margin + side + 4
    drawn = drawing(shapes, (-margin, -margin, whole, whole), f"confusion matrix of {len(classes)} classes")
    text = "Rows: the right class; columns: what it was taken for. The darker, the larger the share of the row."
    return [
        element("p", text, class_="soft"),
        element("div", element("figure", drawn, class_="matrix", style=f"width: {whole:g}px"), class_="wide"),
    ]


def _worst(worst: Sequence[Content], thumbnails: Thumbnails) -> list[Html]:
    if not worst:
        return [element("p", "No image was classified wrongly.")]
    figures = []
    for one in worst[:_LISTED]:
        sure = "" if one.get("its_probability") is None else f" {_percent(one['its_probability'])}"
        figures.append(
            _figure(
                one,
                thumbnails,
                *(element("b", str(one["taken_for"])), sure, element("br")),
                f"right: {one['class']} {_percent(one['probability'])}",
            )
        )
    text = "Those that are most surely taken for another class: that class and the right one, with their probabilities."
    return [
        element("h4", "The worst images"),
        element("p", text, class_="soft"),
        element("div", *figures, class_="worst"),
    ]


def _worst_by_label(content: Content, worst: Sequence[Content], thumbnails: Thumbnails) -> list[Html]:
    parts = []
    grouped = [(label, list(images)) for label, images in groupby(worst, key=lambda one: str(one["class"]))]
    for label, images in grouped[:_SHOWN_LABELS]:
        precision = float(content["per_class"][label]["accuracy"])
        figures = [
            _figure(
                one,
                thumbnails,
                element("b", _percent(one["probability"])),
                ", has it" if one["labeled"] else ", has it not",
            )
            for one in images
        ]
        parts += [
            element("p", element("b", label), element("span", f" average precision {precision:.1f} %", class_="soft")),
            element("div", *figures, class_="worst"),
        ]
    rest = len(grouped) - _SHOWN_LABELS
    more = [element("p", f"and {rest:,} more labels in results.json.", class_="soft")] if rest > 0 else []
    text = (
        "By label, the one with the lowest average precision first: images without it that get the highest "
        "probabilities, and images with it that get the lowest."
    )
    return [element("h4", "The worst images"), element("p", text, class_="soft"), *parts, *more]


def _percent(share: float) -> str:
    return f"{100 * float(share):.0f}\N{NO-BREAK SPACE}%"


def _figure(one: Content, thumbnails: Thumbnails, *caption: str) -> Html:
    name = str(one["name"])
    shown = thumbnails.get(name)
    image = [] if shown is None else [picture(shown, name, title=name, loading="lazy")]
    below = element("figcaption", *caption, element("br"), element("span", breakable(name), class_="soft"))
    return element("figure", *image, below, class_="small" if shown is not None and len(shown) <= 64 else "large")
