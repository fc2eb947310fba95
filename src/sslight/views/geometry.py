"""Where views are cut from an image, and the cutting: torchvision's RandomResizedCrop, many boxes at once."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

_NUM_TRIES = 10
UNIFORMS_PER_BOX = 2 * _NUM_TRIES + 2


def sample_boxes(
    height: int,
    width: int,
    uniforms: Float64Array,
    *,
    scale_low: Float64Array,
    scale_high: Float64Array,
    aspect_ratio: tuple[float, float],
) -> Int64Array:
    """Draw crop boxes with the distribution of torchvision's ``RandomResizedCrop.get_params``.

    Up to ten times an area (uniform) and an aspect ratio (log-uniform) are drawn until the box fits into
    the image; its position is then uniform. If none fits: the centre, with the ratio clamped.

    Args:
        height: Height of the image in px.
        width: Width of the image in px.
        uniforms: Numbers in [0, 1), shape [..., ``UNIFORMS_PER_BOX``]; one box for each row.
        scale_low: Smallest share of the image area, broadcastable to [...].
        scale_high: Largest share of the image area, broadcastable to [...].
        aspect_ratio: Narrowest and widest box, as width over height.

    Returns:
        Boxes [..., 4] as (top, left, height, width) in px.
    """
    low, high = np.asarray(scale_low)[..., None], np.asarray(scale_high)[..., None]
    log_narrow, log_wide = np.log(aspect_ratio)
    area = (height * width) * (low + (high - low) * uniforms[..., :_NUM_TRIES])
    ratio = np.exp(log_narrow + (log_wide - log_narrow) * uniforms[..., _NUM_TRIES : 2 * _NUM_TRIES])
    # rint rounds halves to even, as Python's round does.
    widths = np.rint(np.sqrt(area * ratio))
    heights = np.rint(np.sqrt(area / ratio))
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.argmax(axis=-1)[..., None]
    found = np.take_along_axis(fits, first, axis=-1)[..., 0]
    box_height = np.take_along_axis(heights, first, axis=-1)[..., 0]
    box_width = np.take_along_axis(widths, first, axis=-1)[..., 0]
    top = np.floor(uniforms[..., -2] * (height - box_height + 1))
    left = np.floor(uniforms[..., -1] * (width - box_width + 1))
    boxes = np.stack([top, left, box_height, box_width], axis=-1).astype(np.int64)
    if not found.all():
        boxes[~found] = _centre_box(height, width, aspect_ratio)
    return boxes


def _centre_box(height: int, width: int, aspect_ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    narrow, wide = aspect_ratio
    box_height, box_width = height, width
    if width / height < narrow:
        box_height = round(width / narrow)
    elif width / height > wide:
        box_width = round(height * wide)
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def resize_crop(image: Tensor, box: Sequence[int], size: int | tuple[int, int]) -> Tensor:
    """Cut a box from an image and resize it (bicubic, antialiased), like Pillow but for rare single levels.

    Args:
        image: Pixels [3, H, W], uint8; fastest when channels-last in memory.
        box: (top, left, height, width) in px, inside the image.
        size: Height and width of the result in px, or the side of a square.

    Returns:
        Pixels [3, size, size], uint8, channels-last: ``.permute(1, 2, 0)`` is contiguous.
    """
    return torch.from_numpy(resize_crop_pixels(image.permute(1, 2, 0).numpy(), box, size)).permute(2, 0, 1)


def resize_crop_pixels(pixels: UInt8Array, box: Sequence[int], size: int | tuple[int, int]) -> UInt8Array:
    """``resize_crop`` for pixels [H, W, 3]; returns contiguous [size, size, 3]. Views of arrays cost least."""
    top, left, height, width = box
    # torch takes its fast path only for contiguous input whose strides say channels-last, that of the batch
    # too: the copy costs a tenth of what it saves.
    crop = pixels[None, top : top + height, left : left + width].copy()
    target = (size, size) if isinstance(size, int) else size
    packed = torch.from_numpy(crop).permute(0, 3, 1, 2)
    resized = interpolate(packed, size=target, mode="bicubic", antialias=True)
    return np.ascontiguousarray(resized.permute(0, 2, 3, 1).numpy()[0])
