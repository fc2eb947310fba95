"""Predicted boxes and masks on images, to look at."""

import colorsys
import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms.functional import resize
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks, make_grid

from sslight.data import DetectionSet, UnreadableImage, decode_mask
from sslight.evaluate.detection.average_precision import Prediction
from sslight.files import whole_file

_SURE, _AT_LEAST = 0.5, 3
_TILE = (480, 400)


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
            tiles.append(_tile(images.decode(index), shown[::-1], images))
        except (UnreadableImage, OSError):
            continue
    tiles = tiles or [torch.full((3, _TILE[1], _TILE[0]), 255, dtype=torch.uint8)]
    sheet = make_grid(tiles, nrow=math.ceil(math.sqrt(len(tiles))), padding=0, pad_value=255)
    with whole_file(path, "wb") as file:
        Image.fromarray(sheet.permute(1, 2, 0).numpy()).save(file, format="PNG")


def _tile(pixels: torch.Tensor, shown: Sequence[Prediction], images: DetectionSet) -> torch.Tensor:
    """One image, made to fit, with its predictions, the last one on top."""
    colors = [_color(each.label) for each in shown]
    for each, color in zip(shown, colors, strict=True):
        if each.mask is not None:
            inside = torch.from_numpy(decode_mask(each.mask).astype(bool))
            pixels = draw_segmentation_masks(pixels, inside, alpha=0.5, colors=color)
    height, width = pixels.shape[1:]
    scale = min((_TILE[0] - 4) / width, (_TILE[1] - 4) / height)
    pixels = resize(pixels, [max(1, round(height * scale)), max(1, round(width * scale))])
    if shown:
        boxes = scale * torch.tensor([each.box for each in shown])
        boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:].clamp_min(1)
        labels = [f"{images.categories[each.label]} {100 * each.score:.0f}" for each in shown]
        pixels = draw_bounding_boxes(pixels, boxes, labels, colors, width=2, fill_labels=True)
    left, top = (_TILE[0] - pixels.shape[2]) // 2, (_TILE[1] - pixels.shape[1]) // 2
    padding = [left, _TILE[0] - pixels.shape[2] - left, top, _TILE[1] - pixels.shape[1] - top]
    return F.pad(pixels, padding, value=255)


def _color(label: int) -> tuple[int, int, int]:
    """One light color for each category, neighbors far apart."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618 % 1.0, 0.65, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
