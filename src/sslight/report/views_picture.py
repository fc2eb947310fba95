"""The picture of ``sslight views``: images with the boxes of their views, and the views, for each recipe."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sslight.report.views_page import Content
from sslight.report.views_sheet import ShownImage, ShownView, label_places

_PAPER, _INK, _SOFT = "#ffffff", "#1b1f24", "#5b6470"
_GLOBAL, _LOCAL = "#ff7a2f", "#3ea6ff"
_IMAGE, _VIEW, _GAP, _TEXT = 360, 150, 8, 20
_MARGIN = 24
_VIEWS_WIDTH = 572  # six local views of 128 px beside global ones of 224
_CELL = _IMAGE + 2 * _GAP + _VIEWS_WIDTH
_BELOW_A_VIEW = "below a view: the share of the image that it shows; views of a recipe are to scale"


def views_picture(content: Content, images: Sequence[ShownImage]) -> Image.Image:
    """A row for each image, a column for each recipe; views are to scale within a recipe."""
    recipes = content["recipes"]
    rows = [[_cell(image, views) for views in image.views] for image in images]
    heights = [max(cell.height for cell in row) + _TEXT + 2 * _GAP for row in rows]
    head = _MARGIN + 5 * _TEXT
    width = 2 * _MARGIN + len(recipes) * _CELL + (len(recipes) - 1) * _MARGIN
    sheet = Image.new("RGB", (width, head + sum(heights) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, recipe in enumerate(recipes):
        left = _MARGIN + column * (_CELL + _MARGIN)
        draw.text((left, _MARGIN), " ".join([recipe["name"], *recipe["changes"]]), _INK, _font(18))
        draw.text((left, _MARGIN + 26), _facts(recipe), _SOFT, _font(13))
    _legend(draw, _MARGIN + 54)
    top = head
    for image, row, height in zip(images, rows, heights, strict=True):
        draw.text((_MARGIN, top), _shortened(image.name), _SOFT, _font(13))
        for column, cell in enumerate(row):
            sheet.paste(cell, (_MARGIN + column * (_CELL + _MARGIN), top + _TEXT))
        top += height
    return sheet


def _legend(draw: ImageDraw.ImageDraw, top: int) -> None:
    left = _MARGIN
    for color, text in ((_GLOBAL, "G: global view"), (_LOCAL, "L: local view"), (None, _BELOW_A_VIEW)):
        if color is not None:
            draw.rectangle((left, top + 3, left + 14, top + 13), outline=color, width=3)
            left += 20
        draw.text((left, top), text, _SOFT, _font(13))
        left += round(draw.textlength(text, _font(13))) + 24


def _facts(recipe: Content) -> str:
    views, statistics = recipe["views"], recipe["statistics"]
    facts = [f"{views['num_global']} global views of {views['global_size']} px"]
    if statistics["local_in_global"] is not None:
        facts += [
            f"{views['num_local']} local of {views['local_size']} px",
            f"{100 * statistics['local_in_global']['mean']:.0f} % of a local view inside a global one",
            f"object size local : global {statistics['object_size_ratio']['median']:.2f}",
        ]
    return " · ".join(facts)


def _shortened(name: str) -> str:
    return name if len(name) <= 60 else f"…{name[-59:]}"


def _cell(image: ShownImage, views: Sequence[ShownView]) -> Image.Image:
    """The image with boxes on the left, its views on the right."""
    photo = _with_boxes(image, views)
    global_size = max(len(view.pixels) for view in views if view.is_global)
    area = image.pixels.shape[0] * image.pixels.shape[1]
    placed: list[tuple[int, int, Image.Image, ShownView]] = []
    left, top, line = 0, 0, 0
    previous = True
    for view in views:
        side = round(_VIEW * len(view.pixels) / global_size)
        if left + side > _VIEWS_WIDTH or view.is_global is not previous:
            left, top, line = 0, top + line, 0
        resample = Image.Resampling.NEAREST if len(view.pixels) <= 96 else Image.Resampling.BICUBIC
        placed.append((left, top, Image.fromarray(view.pixels).resize((side, side), resample), view))
        left, line, previous = left + side + _GAP, max(line, side + _TEXT + _GAP), view.is_global
    cell = Image.new("RGB", (_CELL, max(photo.height, top + line)), _PAPER)
    cell.paste(photo, (0, 0))
    draw = ImageDraw.Draw(cell)
    for left, top, tile, view in placed:
        x, color = _IMAGE + 2 * _GAP + left, _GLOBAL if view.is_global else _LOCAL
        cell.paste(tile, (x, top))
        draw.rectangle((x, top + tile.height, x + tile.width - 1, top + tile.height + 2), fill=color)
        text = f"{view.name} · {100 * view.box[2] * view.box[3] / area:.0f} %"
        draw.text((x, top + tile.height + 4), text, _SOFT, _font(12))
    return cell


def _with_boxes(image: ShownImage, views: Sequence[ShownView]) -> Image.Image:
    height, width = image.pixels.shape[:2]
    factor = _IMAGE / max(height, width)
    resample = Image.Resampling.NEAREST if factor >= 2 else Image.Resampling.BICUBIC
    photo = Image.fromarray(image.pixels).resize((round(width * factor), round(height * factor)), resample)
    draw = ImageDraw.Draw(photo)
    for view in sorted(views, key=lambda view: view.is_global, reverse=True):
        top, left, box_height, box_width = (np.array(view.box) * factor).round().astype(int).tolist()
        corners = (left, top, left + box_width - 1, top + box_height - 1)
        draw.rectangle(corners, outline="#000000", width=4)
        inner = (corners[0] + 1, corners[1] + 1, corners[2] - 1, corners[3] - 1)
        draw.rectangle(inner, outline=_GLOBAL if view.is_global else _LOCAL, width=2)
    places = label_places([view.box for view in views], width=22 / factor, height=13 / factor)
    for view, (y, x) in zip(views, places, strict=True):
        place = (round(x * factor) + 6, round(y * factor) + 5)
        draw.text(place, view.name, "#ffffff", _font(13), stroke_width=2, stroke_fill="#000000")
    return photo


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
