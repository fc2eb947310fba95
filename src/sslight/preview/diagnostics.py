"""What a sampling of views amounts to, over many draws: how views overlap and at what size they show things.

The quantities are those with which SSLight (ICLR 2023, section 4) argues: what local and global views have
in common, and whether objects have like pixel sizes in both.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from sslight.config import ViewSettings
from sslight.views.multi_crop import build_multi_crop

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

SHARE_EDGES: Float64Array = np.linspace(0.0, 1.0, 21)
"""Bins of histograms of shares."""

RATIO_EDGES: Float64Array = 2.0 ** np.linspace(-2.0, 2.0, 25)
"""Bins of histograms of ratios, from a quarter to four."""


@dataclass(frozen=True)
class Distribution:
    """A quantity over many draws."""

    mean: float
    median: float
    low: float  # the 5 % quantile
    high: float  # the 95 % quantile
    histogram: tuple[float, ...]  # share of the draws in each bin; what lies outside is in the outermost ones


@dataclass(frozen=True)
class ViewStatistics:
    """The geometry of a sampling of views; what concerns local views is None without them."""

    global_share: Distribution  # of the image that a global view shows
    global_global_iou: Distribution  # intersection over union of two global views
    global_magnification: Distribution  # view pixels per image pixel along a side; above 1 is enlarged
    local_share: Distribution | None = None
    local_in_global: Distribution | None = None  # share of a local view inside a global one, over all pairs
    apart: float | None = None  # share of the local-global pairs without a common pixel
    local_global_iou: Distribution | None = None
    # Pixel size of an object (side / √area of the crop) in a local view over that in a global one.
    object_size_ratio: Distribution | None = None
    matching_local_size: float | None = None  # side of local views in px at which that ratio's median is 1
    # The same from the mean scales alone, which ignore that large crops often do not fit and are drawn again.
    nominal_local_size: float | None = None
    local_magnification: Distribution | None = None


def measure_views(settings: ViewSettings, sizes: Int64Array, *, num_draws: int, seed: int) -> ViewStatistics:
    """Draw the boxes of images many times and measure them; no pixel is touched.

    ``sizes [N, 2]`` are heights and widths in px; each image has equally many of the ``num_draws`` draws or more.
    """
    multi_crop = build_multi_crop(settings)
    rng = np.random.Generator(np.random.Philox(seed))
    draws_per_image = ceil(num_draws / len(sizes))
    unique, counts = np.unique(sizes, axis=0, return_counts=True)
    boxes = [
        multi_crop.draw_boxes(height, width, draws_per_image * count, rng)
        for (height, width), count in zip(unique.tolist(), counts.tolist(), strict=True)
    ]
    image_areas = np.repeat(unique.prod(axis=1), draws_per_image * counts)[:, None]
    global_boxes, local_boxes = np.split(np.concatenate(boxes), [settings.num_global], axis=1)

    global_areas = global_boxes[..., 2:].prod(axis=-1)
    global_magnification = settings.global_size / np.sqrt(global_areas)
    first, second = np.triu_indices(settings.num_global, k=1)
    global_common = common_areas(global_boxes, global_boxes)[:, first, second]
    global_union = global_areas[:, first] + global_areas[:, second] - global_common
    statistics: dict[str, Any] = {
        "global_share": _distribution(global_areas / image_areas, SHARE_EDGES),
        "global_global_iou": _distribution(global_common / global_union, SHARE_EDGES),
        "global_magnification": _distribution(global_magnification, RATIO_EDGES),
    }
    if not settings.num_local:
        return ViewStatistics(**statistics)
    local_areas = local_boxes[..., 2:].prod(axis=-1)
    local_magnification = settings.local_size / np.sqrt(local_areas)
    common = common_areas(global_boxes, local_boxes)
    union = global_areas[:, :, None] + local_areas[:, None, :] - common
    object_size_ratio = _distribution(local_magnification[:, None, :] / global_magnification[:, :, None], RATIO_EDGES)
    return ViewStatistics(
        **statistics,
        local_share=_distribution(local_areas / image_areas, SHARE_EDGES),
        local_in_global=_distribution(common / local_areas[:, None, :], SHARE_EDGES),
        apart=float((common == 0).mean()),
        local_global_iou=_distribution(common / union, SHARE_EDGES),
        object_size_ratio=object_size_ratio,
        matching_local_size=settings.local_size / object_size_ratio.median,
        nominal_local_size=settings.global_size * (sum(settings.local_scale) / sum(settings.global_scale)) ** 0.5,
        local_magnification=_distribution(local_magnification, RATIO_EDGES),
    )


def common_areas(boxes: Int64Array, others: Int64Array) -> Int64Array:
    """Areas in px ``[N, A, B]`` that ``boxes [N, A, 4]`` (top, left, height, width) share with ``others [N, B, 4]``."""
    one, two = boxes[:, :, None, :], others[:, None, :, :]
    begin = np.maximum(one[..., :2], two[..., :2])
    end = np.minimum(one[..., :2] + one[..., 2:], two[..., :2] + two[..., 2:])
    areas: Int64Array = np.maximum(end - begin, 0).prod(axis=-1)
    return areas


def _distribution(values: Float64Array, edges: Float64Array) -> Distribution:
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95]).tolist()
    return Distribution(float(values.mean()), median, low, high, tuple((counts / values.size).tolist()))
