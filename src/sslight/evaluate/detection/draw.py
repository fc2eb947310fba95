"""Predicted boxes and masks on images, to look at."""

import colorsys
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from sslight.data import DetectionSet, UnreadableImage, decode_mask
from sslight.evaluate.detection.average_precision import Prediction
from sslight.files import whole_file

_SURE, _AT_LEAST = 0.5, 3
_TILE = (480, 400)
_MASK_OPACITY = 0.5


def sampled(images: DetectionSet, number: int) -> list[int]:
    """Positions of so many images, evenly spread over the set."""
    return sorted({int(index) for index in np.linspace(0, len(images) - 1, min(number, len(images)))})


def draw_sample(path: Path, images: DetectionSet, predictions: Sequence[Prediction], indices: Sequence[int]) -> None:
    """Write a PNG with the images at ``indices`` side by side, and on each what was predicted.

    Drawn are the predictions with a score of 0.5 or more, but at least the three best; each with its
    category and its score in percent. Unreadable images are left out.
    """
    tiles = []
    for index in indices:
        own = sorted((each for each in predictions if each.image == index), key=lambda each: -each.score)
        shown = own[: max(_AT_LEAST, sum(each.score >= _SURE for each in own))]
        try:
            pixels = images.decode(index)
        except (UnreadableImage, OSError):
            continue
        tiles.append(_tile(pixels, shown, images))
    columns = max(1, math.ceil(math.sqrt(len(tiles))))
    rows = max(1, -(-len(tiles) // columns))
    sheet = Image.new("RGB", (columns * _TILE[0], rows * _TILE[1]), "white")
    for position, tile in enumerate(tiles):
        row, column = divmod(position, columns)
        left, top = column * _TILE[0] + (_TILE[0] - tile.width) // 2, row * _TILE[1] + (_TILE[1] - tile.height) // 2
        sheet.paste(tile, (left, top))
    with whole_file(path, "wb") as file:
        sheet.save(file, format="PNG")


def _tile(pixels: torch.Tensor, shown: Sequence[Prediction], images: DetectionSet) -> Image.Image:
    """One image, made to fit, with its predictions, the best one on top."""
    array = pixels.permute(1, 2, 0).numpy().astype(np.float32)
    for each in reversed(shown):
        if each.mask is not None:
            inside = decode_mask(each.mask).astype(bool)
            array[inside] += _MASK_OPACITY * (np.array(_color(each.label), dtype=np.float32) - array[inside])
    image = Image.fromarray(array.round().astype(np.uint8))
    scale = min((_TILE[0] - 4) / image.width, (_TILE[1] - 4) / image.height)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default()
    for each in reversed(shown):
        x, y, width, height = (scale * number for number in each.box)
        color = _color(each.label)
        draw.rectangle((x, y, x + max(width, 1), y + max(height, 1)), outline=color, width=2)
        text = f"{images.categories[each.label]} {100 * each.score:.0f}"
        left, top = x, max(0.0, y - 12)
        draw.rectangle(draw.textbbox((left + 2, top), text, font=font), fill=color)
        draw.text((left + 2, top), text, fill="black", font=font)
    return image


def _color(label: int) -> tuple[int, int, int]:
    """One light colour for each category, neighbours far apart."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618 % 1.0, 0.65, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
