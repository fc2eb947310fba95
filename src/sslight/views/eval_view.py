"""The one view of an image on which a backbone is evaluated."""

import numpy as np
import torch
from torch import Tensor

from sslight.views.filters import resize_boxes

# Images are evaluated at 224 px after their shorter side was made 256 px; other sizes keep the ratio.
_RESIZE_TO_SIZE = 256 / 224

# Of a longer strip only the center is resized, of which the view shows a part; all of it could take gigabytes.
_LONGEST = 16


def center_view(image: Tensor, size: int, resize: int | None = None) -> Tensor:
    """Resize the shorter side and cut out the center, as torchvision's Resize (bicubic) and CenterCrop.

    Of an image more than 16 times as long as it is short, only the center of that shape is looked at.

    Args:
        image: Pixels [3, H, W], uint8.
        size: Side of the view in px.
        resize: Length of the shorter side before cutting in px; by default round(size · 256 / 224).

    Returns:
        Pixels [3, size, size], uint8, channels-last.

    Raises:
        ValueError: ``image`` is not uint8 [3, H, W], or ``resize`` is smaller than ``size``.
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(
            f"image has shape {tuple(image.shape)} and dtype {image.dtype}: a view is cut from uint8 pixels "
            f"[3, height, width]; convert the image to RGB first."
        )
    shorter = round(size * _RESIZE_TO_SIZE) if resize is None else resize
    if not 0 < size <= shorter:
        raise ValueError(f"resize={shorter} is smaller than size={size}: resize to at least the side of the view.")
    image = _center_of_strip(image)
    height, width = image.shape[1:]
    if height <= width:
        resized_height, resized_width = shorter, int(shorter * width / height)
    else:
        resized_height, resized_width = int(shorter * height / width), shorter
    planes = np.empty((1, 3, resized_height, resized_width), np.uint8)
    whole, no_flip = np.array([[0, 0, height, width]]), np.zeros(1, np.bool_)
    resize_boxes(image.permute(1, 2, 0).contiguous().numpy(), whole, no_flip, planes, planes[1:])
    top, left = round((resized_height - size) / 2), round((resized_width - size) / 2)
    center = torch.from_numpy(planes[0])[:, top : top + size, left : left + size]
    return center.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def _center_of_strip(image: Tensor) -> Tensor:
    """The center of an image, if it is more than 16 times as long as it is short."""
    height, width = image.shape[1:]
    most = _LONGEST * min(height, width)
    top, left = max(0, (height - most) // 2), max(0, (width - most) // 2)
    return image[:, top : top + most, left : left + most]
