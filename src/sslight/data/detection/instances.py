"""Images with boxes and masks: what detectors are trained and measured on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from faster_coco_eval.core import mask as mask_api
from torch import Tensor

from sslight.config.schema.fields import MAX_PIXELS
from sslight.data.decoding.decode import decode, format_mode_and_orientation
from sslight.data.decoding.limits import UnreadableImage, read_image_file
from sslight.data.sources.names import printable

Segmentation = list[list[float]] | dict[str, Any]
"""Polygons (x, y, x, y, ... in px), or the run lengths ``{"size": [height, width], "counts": bytes}``."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One annotated object.

    ``label`` is the position of its category in the set's; ``box`` left, top, width and height in px of the annotated
    image, which may reach outside or be empty; ``area`` in px², by which COCO tells small from large. A ``crowd`` of
    objects is not trained on, and predictions in it are neither right nor wrong; ``difficult`` ones are trained on,
    but not counted by Pascal VOC. ``segmentation`` is None in a set that was read without masks.
    """

    label: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool = False
    difficult: bool = False
    segmentation: Segmentation | None = None


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image, its size in px as annotated, and its objects; ``key`` is its id in the annotation files."""

    key: int | str
    file: Path
    height: int
    width: int
    instances: tuple[Instance, ...]


@dataclass(frozen=True, kw_only=True)
class DetectionSet:
    """Annotated images in a fixed order, as a source of encoded bytes without class labels.

    ``kind`` is ``coco`` or ``voc``, each with its own measure; ``split`` a name for people; ``category_keys`` are the
    ids of the ``categories`` in the annotation files.
    """

    kind: str
    split: str
    categories: Sequence[str]
    category_keys: Sequence[int]
    images: Sequence[AnnotatedImage]
    classes: tuple[str, ...] | None = None
    labels: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> bytes:
        return read_image_file(self.images[index].file)

    def name(self, index: int) -> str:
        file = self.images[index].file
        return f"{file.parent.name}/{file.name}"

    def locate(self, index: int) -> str:
        return printable(str(self.images[index].file))

    def decode(self, index: int, *, max_pixels: int = MAX_PIXELS) -> Tensor:
        """Pixels uint8 [3, height, width] of the annotated size. Raises OSError or UnreadableImage.

        A photograph that EXIF turns to its side may have been annotated as it is stored: then the sizes fit when
        swapped, and it is turned back. One that EXIF mirrors or turns upside down counts as annotated upright.
        """
        image = self.images[index]
        encoded = self.read(index)
        pixels = decode(encoded, max_pixels=max_pixels)
        height, width = pixels.shape[1:]
        if (height, width) == (image.width, image.height) and height != width:
            pixels = _as_stored(pixels, encoded)
            height, width = pixels.shape[1:]
        if (height, width) != (image.height, image.width):
            raise UnreadableImage(f"is {width} × {height} px, but annotated as {image.width} × {image.height}")
        return pixels

    def trainable(self) -> "DetectionSet":
        """Only the images with at least one object to learn from, as detectors are trained by custom."""
        return replace(self, images=[image for image in self.images if usable_instances(image)])


def _as_stored(pixels: Tensor, encoded: bytes) -> Tensor:
    """An image that was turned upright, as it lies in its file; unchanged where EXIF does not swap its sides."""
    orientation = format_mode_and_orientation(encoded)[2]
    if orientation in (5, 7):
        pixels = pixels.transpose(1, 2)
        return pixels if orientation == 5 else pixels.flip(1, 2)
    return pixels.rot90({6: 1, 8: -1}.get(orientation, 0), (1, 2))


def usable_instances(image: AnnotatedImage) -> list[Instance]:
    """The objects of an image to learn from: no crowds, and no boxes that are empty within the image."""
    return [each for each in image.instances if not each.crowd and _within(each, image) is not None]


def _within(instance: Instance, image: AnnotatedImage) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom of a box as far as it lies in its image; None if nothing is left."""
    x, y, width, height = instance.box
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + width, float(image.width)), min(y + height, float(image.height))
    # Narrower ones could become empty in float32 once images are made smaller.
    return (left, top, right, bottom) if right - left > 1e-2 and bottom - top > 1e-2 else None


def targets_at(image: AnnotatedImage, height: int, width: int, *, flip: bool, masks: bool) -> dict[str, Tensor]:
    """What a detector should find in an image that was resized to ``height`` × ``width`` px and perhaps mirrored.

    ``boxes`` float32 [N, 4] as left, top, right, bottom in px; ``labels`` int64 [N], counted from 1 (0 is the
    background); with masks, ``masks`` uint8 [N, height, width].
    """
    usable = usable_instances(image)
    corners = [corners for each in usable if (corners := _within(each, image)) is not None]
    scale_x, scale_y = width / image.width, height / image.height
    boxes = torch.tensor(corners, dtype=torch.float64).reshape(-1, 4)
    boxes *= torch.tensor([scale_x, scale_y, scale_x, scale_y], dtype=torch.float64)
    if flip:
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    targets = {
        "boxes": boxes.to(torch.float32),
        "labels": torch.tensor([each.label + 1 for each in usable], dtype=torch.int64),
    }
    if masks:
        drawn = np.zeros((len(usable), height, width), dtype=np.uint8)
        for row, each in enumerate(usable):
            assert each.segmentation is not None
            mask = _mask_at(each.segmentation, image, height, width)
            drawn[row] = mask[:, ::-1] if flip else mask
        targets["masks"] = torch.from_numpy(drawn)
    return targets


def _mask_at(segmentation: Segmentation, image: AnnotatedImage, height: int, width: int) -> npt.NDArray[np.uint8]:
    """A mask at the size of a resized image; polygons are resized before they are filled."""
    if isinstance(segmentation, dict):
        rows = (np.arange(height) * image.height) // height
        columns = (np.arange(width) * image.width) // width
        return decode_mask(segmentation)[rows][:, columns]
    scale = (width / image.width, height / image.height)
    polygons = [(np.reshape(polygon, (-1, 2)) * scale).ravel().tolist() for polygon in segmentation]
    return decode_mask(mask_api.merge(mask_api.frPyObjects(polygons, height, width)))


def encode_mask(mask: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """Run lengths of a mask [H, W] of zeros and ones, as in :data:`Segmentation`."""
    encoded: dict[str, Any] = mask_api.encode(np.asfortranarray(mask))
    return encoded


def decode_mask(segmentation: dict[str, Any]) -> npt.NDArray[np.uint8]:
    """The mask [H, W] of run lengths."""
    mask: npt.NDArray[np.uint8] = mask_api.decode(segmentation)
    return mask
