"""The page of ``sslight views``: whether views match, in words, in numbers and in pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sslight.report.charts import histogram
from sslight.report.page import Html, element, page, picture, table, together
from sslight.report.views_table import footnote, views_table

UInt8Array = npt.NDArray[np.uint8]
Content = Mapping[str, Any]

MADE_BY = "sslight views"
_GLOBAL_WIDTH, _IMAGE_WIDTH = 150, 420
_LARGEST_IMAGE = 640
_RATIO_TICKS = ((0.0, "¼"), (0.25, "½"), (0.5, "1"), (0.75, "2"), (1.0, "4"))
_SHARE_TICKS = ((0.0, "0 %"), (0.25, "25"), (0.5, "50"), (0.75, "75"), (1.0, "100 %"))


@dataclass(frozen=True)
class ShownView:
    """A view: name (G1, L3), whether it is global, pixels [S, S, 3] uint8, box in the image, and changes.

    ``box`` is (top, left, height, width) in px; ``changes`` says in words what was done to the crop.
    """

    name: str
    is_global: bool
    pixels: UInt8Array
    box: tuple[int, int, int, int]
    changes: str


@dataclass(frozen=True)
class ShownImage:
    """An image [H, W, 3] uint8 with its name and, for each recipe, its views."""

    name: str
    pixels: UInt8Array
    views: Sequence[Sequence[ShownView]]


def views_page(content: Content, images: Sequence[ShownImage]) -> str:
    """The page from the numbers (as in ``views.json``) and the images.

    Args:
        content: What was measured, as plain data.
        images: The images to show, their views in the order of ``content["recipes"]``.
    """
    recipes = content["recipes"]
    names = [_name(number, recipe, number > 0) for number, recipe in enumerate(recipes)]
    return page(
        f"Views of {content['data']}",
        element("p", _subtitle(content), class_="soft"),
        element("div", *(_card(number, recipe) for number, recipe in enumerate(recipes)), class_="cards"),
        element("h2", "In numbers"),
        table(["", *names], views_table(recipes)),
        element("p", footnote(content), class_="soft"),
        *_charts(recipes),
        element("h2", "In pictures"),
        _legend(),
        *(_image(image, recipes) for image in images),
        *_unreadable(content),
        made_by=MADE_BY,
    )


def _subtitle(content: Content) -> str:
    return (
        f"What a network sees of {content['images']['number']:,} images in the first epoch of a run with "
        f"seed {content['seed']}, before normalisation."
    )


def _name(number: int, recipe: Content, with_changes: bool) -> Html:
    dot = element("span", class_="dot", style=f"--colour: var(--series-{number % 6})")
    changes = [element("br"), *_assignments(recipe["changes"])] if with_changes and recipe["changes"] else []
    parts = recipe["name"].split("_")  # a long name may break after an underscore
    breakable = [parts[0]] + [together(["_", element("wbr"), part]) for part in parts[1:]]
    return together([dot, *breakable, *changes])


def _card(number: int, recipe: Content) -> Html:
    mismatches = recipe["mismatches"]
    if mismatches:
        word = "1 mismatch" if len(mismatches) == 1 else f"{len(mismatches)} mismatches"
        verdict = together(
            [element("div", word, class_="warn"), element("ul", *(_mismatch(mismatch) for mismatch in mismatches))]
        )
    else:
        verdict = together([element("div", "No mismatch", class_="good"), element("p", recipe["summary"])])
    return element("section", element("h3", _name(number, recipe, True)), verdict, class_="card")


def _mismatch(mismatch: Content) -> Html:
    sentence = mismatch["sentence"]
    proposal = [element("div", "Try ", *_assignments(mismatch["proposal"]))] if mismatch["proposal"] else []
    return element("li", sentence[0].upper() + sentence[1:], *proposal)


def _assignments(words: Sequence[str]) -> list[Html]:
    return [together([element("code", word), " "]) for word in words]


def _charts(recipes: Sequence[Content]) -> list[Html]:
    drawn = []
    for key, ticks, label, mark in (
        ("local_in_global", _SHARE_TICKS, "share of a local view that lies in a global view", None),
        ("object_size_ratio", _RATIO_TICKS, "object size in a local view : in a global view", 0.5),
    ):
        series = [(recipe["statistics"][key] or {}).get("histogram", (0.0,)) for recipe in recipes]
        if any(sum(shares) for shares in series):
            drawn.append(histogram(series, ticks=ticks, label=label, mark=mark))
    if not drawn:
        return []
    keys = [element("span", _name(number, recipe, False)) for number, recipe in enumerate(recipes)]
    return [
        element("h2", "Over all draws"),
        element(
            "div", *keys, element("span", "height: share of the local–global pairs", class_="soft"), class_="legend"
        ),
        element("div", *drawn, class_="cards"),
    ]


def _legend() -> Html:
    kinds = (("global", "global view (G)"), ("local", "local view (L)"))
    keys = [element("span", element("span", class_=f"key is-{kind}"), text) for kind, text in kinds]
    scale = element("span", "Below a view: the share of the image that it shows. Views of a recipe are to scale.")
    return element("div", *keys, scale, class_="legend soft")


def _image(image: ShownImage, recipes: Sequence[Content]) -> Html:
    shown = _reduced(image.pixels)
    columns = [
        element(
            "div",
            element("p", _name(number, recipe, True)),
            _crops(image, shown, views),
            _views([view for view in views if view.is_global], views, image),
            _views([view for view in views if not view.is_global], views, image),
        )
        for number, (recipe, views) in enumerate(zip(recipes, image.views, strict=True))
    ]
    height, width = image.pixels.shape[:2]
    heading = element("h3", image.name, element("span", f"  {width} × {height} px", class_="soft"))
    return together([heading, element("div", *columns, class_="pairs")])


def _reduced(pixels: UInt8Array) -> UInt8Array:
    image = Image.fromarray(pixels)
    image.thumbnail((_LARGEST_IMAGE, _LARGEST_IMAGE))
    return np.asarray(image)


def _crops(image: ShownImage, shown: UInt8Array, views: Sequence[ShownView]) -> Html:
    height, width = image.pixels.shape[:2]
    unit = max(height, width) / 100  # a hundredth of the longer side, whatever the size in px
    shapes: list[Html] = []
    for view in sorted(views, key=lambda view: view.is_global, reverse=True):
        top, left, box_height, box_width = view.box
        place = {"x": left, "y": top, "width": box_width, "height": box_height}
        kind = "is-global" if view.is_global else "is-local"
        shapes += [
            element("rect", **place, class_="halo", stroke_width=f"{1.3 * unit:.2f}"),
            element("rect", **place, class_=f"box {kind}", stroke_width=f"{0.7 * unit:.2f}"),
        ]
    for view in views:
        top, left, _, _ = view.box
        at = {"x": f"{left + 1.2 * unit:.1f}", "y": f"{top + 4.4 * unit:.1f}"}
        shapes.append(element("text", view.name, **at, font_size=f"{3.8 * unit:.2f}", stroke_width=f"{0.9 * unit:.2f}"))
    drawing = element("svg", *shapes, viewBox=f"0 0 {width} {height}", aria_hidden="true")
    names = " and ".join(
        f"{len([v for v in views if v.is_global is kind])} {word}"
        for kind, word in ((True, "global"), (False, "local"))
    )
    photo = picture(shown, f"{image.name} with the boxes of {names} views", style=_display_width(shown))
    return element("div", photo, drawing, class_="crops" + (" small" if max(height, width) <= 96 else ""))


def _display_width(pixels: UInt8Array) -> str:
    height, width = pixels.shape[:2]
    return f"width: {round(width * _IMAGE_WIDTH / max(height, width))}px"


def _views(some: Sequence[ShownView], views: Sequence[ShownView], image: ShownImage) -> Html:
    area = image.pixels.shape[0] * image.pixels.shape[1]
    global_size = max(len(view.pixels) for view in views if view.is_global)
    figures = []
    for view in some:
        share = f"{100 * view.box[2] * view.box[3] / area:.0f} %"
        small = " small" if global_size <= 96 else ""
        kind = "global" if view.is_global else "local"
        figures.append(
            element(
                "figure",
                picture(view.pixels, f"{kind} view {view.name} of {image.name}: {view.changes}", title=view.changes),
                element("figcaption", f"{view.name} · {share}"),
                class_=f"view is-{kind}{small}",
                style=f"width: {_GLOBAL_WIDTH * len(view.pixels) / global_size:.0f}px",
            )
        )
    return element("div", *figures, class_="views")


def _unreadable(content: Content) -> list[Html]:
    images = content["images"]["unreadable"]
    if not images:
        return []
    lines = [element("li", f"{image['location']}: {image['reason']}") for image in images]
    return [element("h2", "Unreadable, replaced by other images"), element("ul", *lines)]
