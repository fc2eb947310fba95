"""Gaussian blur as Pillow does it: three box filters along the rows, then three along the columns.

With float32 instead of Pillow's integers, so that the loops vectorise; results are equal but for ties.
"""

import numpy as np
import numpy.typing as npt

from sslight.views.compiled import compiled

UInt8Array = npt.NDArray[np.uint8]

_F = np.float32
_I = np.int32
_PASSES = 3


def _box_of_gaussian(radius: float) -> tuple[int, np.float32, np.float32]:
    """The box filter of which Pillow runs three passes for a Gaussian of this standard deviation.

    Returns:
        Whole pixels on either side of the centre, their weight, and the weight of the one beyond
        (Gwosdek et al., SSVM 2011; libImaging/BoxBlur.c, float32 and 24-bit weights as there).
    """
    variance = radius * radius / _PASSES
    length = np.sqrt(12.0 * variance + 1.0)
    whole = np.floor((length - 1.0) / 2.0)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    box_radius = np.float32(whole + part)
    reach = int(box_radius)
    weight = int(np.float32(1 << 24) / (box_radius * np.float32(2) + np.float32(1)))
    edge_weight = ((1 << 24) - (2 * reach + 1) * weight) // 2
    return reach, np.float32(weight / (1 << 24)), np.float32(edge_weight / (1 << 24))


@compiled
def _box_pass(
    source: UInt8Array,
    target: UInt8Array,
    step: int,
    reach: int,
    weight: np.float32,
    edge_weight: np.float32,
) -> None:
    """One box filter along flat bytes whose neighbours are ``step`` bytes apart.

    ``source`` has reach + 1 steps more than ``target`` on either side.
    """
    # Pillow's 24-bit weights may add up to one bit less than 1, and a tie then rounds down; exact ties are
    # common for some radii (1 px: weights 1/6, 2/3, 1/6), and float32 alone would round half of them up.
    missing_bit = int(_F(1 << 24) * weight) * (2 * reach + 1) + int(_F(1 << 24) * edge_weight) * 2 < 1 << 24
    half = _F(0.5 - 2**-15) if missing_bit else _F(0.5)
    n = target.shape[0]
    before = source[:n]
    after = source[2 * (reach + 1) * step : 2 * (reach + 1) * step + n]
    if reach == 0:
        centre = source[step : step + n]
        for i in range(n):
            edges = _F(_I(_I(before[i]) + _I(after[i])))
            target[i] = np.uint8(_I(_F(centre[i]) * weight + edges * edge_weight + half))
    elif reach == 1:
        left = source[step : step + n]
        centre = source[2 * step : 2 * step + n]
        right = source[3 * step : 3 * step + n]
        for i in range(n):
            edges = _F(_I(_I(before[i]) + _I(after[i])))
            inner = _F(_I(_I(left[i]) + _I(centre[i]) + _I(right[i])))
            target[i] = np.uint8(_I(inner * weight + edges * edge_weight + half))
    else:
        inner_sum = np.zeros(n, np.float32)
        for k in range(1, 2 * reach + 2):
            tap = source[k * step : k * step + n]
            for i in range(n):
                inner_sum[i] += _F(tap[i])
        for i in range(n):
            edges = _F(_I(_I(before[i]) + _I(after[i])))
            target[i] = np.uint8(_I(inner_sum[i] * weight + edges * edge_weight + half))


@compiled
def _repeat_edge_columns(plane: UInt8Array, pitch: int, pad: int) -> None:
    for row in range(0, plane.shape[0], pitch):
        right = row + pitch - 3 * pad
        for k in range(pad):
            for c in range(3):
                plane[row + 3 * k + c] = plane[row + 3 * pad + c]
                plane[right + 3 * k + c] = plane[right - 3 + c]


@compiled
def _repeat_edge_rows(plane: UInt8Array, pitch: int, pad: int) -> None:
    last = plane.shape[0] - (pad + 1) * pitch
    for k in range(pad):
        plane[k * pitch : (k + 1) * pitch] = plane[pad * pitch : (pad + 1) * pitch]
        plane[last + (k + 1) * pitch : last + (k + 2) * pitch] = plane[last : last + pitch]


@compiled
def _blur_plane(pixels: UInt8Array, width: int, reach: int, weight: np.float32, edge_weight: np.float32) -> None:
    """Pillow's GaussianBlur in place: three box passes along the rows, then three along the columns."""
    # Room on all sides lets every pass run over the whole plane as one long line of bytes.
    pad = reach + 1
    height = pixels.shape[0] // (3 * width)
    pitch = 3 * (width + 2 * pad)
    size = (height + 2 * pad) * pitch
    plane, other = np.empty(size, np.uint8), np.empty(size, np.uint8)
    for y in range(height):
        start = (y + pad) * pitch + 3 * pad
        plane[start : start + 3 * width] = pixels[3 * width * y : 3 * width * (y + 1)]
    for _ in range(_PASSES):
        _repeat_edge_columns(plane, pitch, pad)
        _box_pass(plane, other[3 * pad : size - 3 * pad], 3, reach, weight, edge_weight)
        plane, other = other, plane
    for _ in range(_PASSES):
        _repeat_edge_rows(plane, pitch, pad)
        _box_pass(plane, other[pad * pitch : size - pad * pitch], pitch, reach, weight, edge_weight)
        plane, other = other, plane
    for y in range(height):
        start = (y + pad) * pitch + 3 * pad
        pixels[3 * width * y : 3 * width * (y + 1)] = plane[start : start + 3 * width]


def blur(pixels: UInt8Array, radius: float) -> None:
    """Blur contiguous pixels [H, W, 3] in place, as ``PIL.ImageFilter.GaussianBlur(radius)``.

    Args:
        pixels: Pixels [H, W, 3]; beyond the border they repeat.
        radius: Standard deviation in px, above 0.
    """
    _blur_plane(pixels.reshape(-1), pixels.shape[1], *_box_of_gaussian(radius))
