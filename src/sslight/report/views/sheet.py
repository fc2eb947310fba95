"""Images with the boxes of their views, and the views as the network sees them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from sslight.report.page import Html, element, picture, together

UInt8Array = npt.NDArray[np.uint8]

_GLOBAL_WIDTH, _IMAGE_WIDTH, _COMPACT_WIDTH = 150, 420, 260
_LARGEST_IMAGE = 640


@dataclass(frozen=True)
class ShownView:
    """A view of an image."""

    name: str  # G1, L3
    is_global: bool
    pixels: UInt8Array  # [S, S, 3]
    box: tuple[int, int, int, int]  # top, left, height, width in the image, px
    changes: str  # what was done to the crop, in words


@dataclass(frozen=True)
class ShownImage:
    """An image [H, W, 3] uint8 with its name and, for each recipe, its views."""

    name: str
    pixels: UInt8Array
    views: Sequence[Sequence[ShownView]]


def views_legend() -> Html:
    """What colors and captions of a sheet mean."""
    kinds = (("global", "global view (G)"), ("local", "local view (L)"))
    keys = [element("span", element("span", class_=f"key is-{kind}"), text) for kind, text in kinds]
    scale = element("span", "Below each view: its share of the image. Views in one column are drawn to scale.")
    return element("div", *keys, scale, class_="legend soft")


def image_sheet(image: ShownImage, headings: Sequence[str], *, compact: bool = False) -> Html:
    """An image with the boxes of its views, and the views; side by side for each of ``image.views``.

    A compact sheet is for pages that show other things, too.
    """
    columns = []
    for heading, views in zip(headings, image.views, strict=True):
        crops = _crops(image, views, _COMPACT_WIDTH if compact else _IMAGE_WIDTH)
        kinds = [_views([view for view in views if view.is_global is kind], views, image) for kind in (True, False)]
        sheet = element("div", crops, element("div", *kinds), class_="sheet")
        columns.append(element("div", *([element("p", heading)] if heading else []), sheet))
    height, width = image.pixels.shape[:2]
    heading = element("h3", image.name, element("span", f"  {width} × {height} px", class_="soft"))
    return together([heading, element("div", *columns, class_="pairs compact" if compact else "pairs")])


def _crops(image: ShownImage, views: Sequence[ShownView], side: int) -> Html:
    height, width = image.pixels.shape[:2]
    unit = max(height, width) / 100  # a hundredth of the longer side, whatever the size in px
    shapes: list[Html] = []
    for view in sorted(views, key=lambda view: view.is_global, reverse=True):
        top, left, box_height, box_width = view.box
        place = {"x": left, "y": top, "width": box_width, "height": box_height}
        kind = "is-global" if view.is_global else "is-local"
        shapes.append(element("rect", **place, class_="halo", stroke_width=f"{1.3 * unit:.2f}"))
        shapes.append(element("rect", **place, class_=f"box {kind}", stroke_width=f"{0.7 * unit:.2f}"))
    places = label_places([view.box for view in views], width=5.4 * unit, height=4 * unit)
    for view, (y, x) in zip(views, places, strict=True):
        at = {"x": f"{x + 1.2 * unit:.1f}", "y": f"{y + 4.4 * unit:.1f}"}
        shapes.append(element("text", view.name, **at, font_size=f"{3.8 * unit:.2f}", stroke_width=f"{0.9 * unit:.2f}"))
    drawing = element("svg", *shapes, viewBox=f"0 0 {width} {height}", aria_hidden="true")
    num_global = sum(view.is_global for view in views)
    alt = f"{image.name} with the boxes of {num_global} global and {len(views) - num_global} local views"
    small = Image.fromarray(image.pixels)
    small.thumbnail((_LARGEST_IMAGE, _LARGEST_IMAGE))
    photo = picture(np.asarray(small), alt, style=f"width: {round(small.width * side / max(small.size))}px")
    return element("div", photo, drawing, class_="crops" + (" small" if max(height, width) <= 96 else ""))


def label_places(
    boxes: Sequence[tuple[int, int, int, int]], *, width: float, height: float
) -> list[tuple[float, float]]:
    """Where names of boxes begin (top, left): in their upper left corners, or to the right of names that are there."""
    places: list[tuple[float, float]] = []
    for top, corner, _, _ in boxes:
        left = float(corner)
        while any(abs(top - y) < height and abs(left - x) < width for y, x in places):
            left += width / 2
        places.append((float(top), left))
    return places


def _views(some: Sequence[ShownView], views: Sequence[ShownView], image: ShownImage) -> Html:
    area = image.pixels.shape[0] * image.pixels.shape[1]
    global_size = max(len(view.pixels) for view in views if view.is_global)
    small = " small" if global_size <= 96 else ""
    figures = []
    for view in some:
        kind = "global" if view.is_global else "local"
        photo = picture(view.pixels, f"{kind} view {view.name} of {image.name}: {view.changes}", title=view.changes)
        caption = element("figcaption", f"{view.name} · {100 * view.box[2] * view.box[3] / area:.0f} %")
        width = f"width: {_GLOBAL_WIDTH * len(view.pixels) / global_size:.0f}px"
        figures.append(element("figure", photo, caption, class_=f"view is-{kind}{small}", style=width))
    return element("div", *figures, class_="views")
