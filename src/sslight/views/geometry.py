"""Where views are cut from an image: torchvision's RandomResizedCrop, many boxes at once."""

import numpy as np

from sslight.views.compiled import Float64Array, Int64Array, compiled

_NUM_TRIES = 10
UNIFORMS_PER_BOX = 2 * _NUM_TRIES + 2


@compiled
def _center_box(height: int, width: int, aspect_ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    narrow, wide = aspect_ratio
    box_height, box_width = height, width
    if width / height < narrow:
        box_height = round(width / narrow)
    elif width / height > wide:
        box_width = round(height * wide)
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


@compiled
def sample_boxes(
    height: int,
    width: int,
    uniforms: Float64Array,
    scale_low: Float64Array,
    scale_high: Float64Array,
    aspect_ratio: tuple[float, float],
) -> Int64Array:
    """Draw crop boxes with the distribution of torchvision's ``RandomResizedCrop.get_params``.

    Up to ten times an area (uniform) and an aspect ratio (log-uniform) are drawn until the box fits into
    the image; its position is then uniform. If none fits: the center, with the ratio clamped.

    Args:
        height, width: Of the image in px.
        uniforms: Numbers in [0, 1), shape [V, ``UNIFORMS_PER_BOX``] or wider; one box for each row.
        scale_low, scale_high: Smallest and largest share of the image area in each box, [V].
        aspect_ratio: Narrowest and widest box, as width over height.

    Returns:
        Boxes [V, 4] as (top, left, height, width) in px.
    """
    log_narrow, log_wide = np.log(aspect_ratio[0]), np.log(aspect_ratio[1])
    boxes = np.empty((uniforms.shape[0], 4), np.int64)
    for v in range(uniforms.shape[0]):
        boxes[v] = _center_box(height, width, aspect_ratio)
        for k in range(_NUM_TRIES):
            area = height * width * (scale_low[v] + (scale_high[v] - scale_low[v]) * uniforms[v, k])
            ratio = np.exp(log_narrow + (log_wide - log_narrow) * uniforms[v, _NUM_TRIES + k])
            # rint rounds halves to even, as Python's round does.
            box_width, box_height = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
            if 0 < box_width <= width and 0 < box_height <= height:
                boxes[v, 0] = np.floor(uniforms[v, 2 * _NUM_TRIES] * (height - box_height + 1))
                boxes[v, 1] = np.floor(uniforms[v, 2 * _NUM_TRIES + 1] * (width - box_width + 1))
                boxes[v, 2], boxes[v, 3] = box_height, box_width
                break
    return boxes
