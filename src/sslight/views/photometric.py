"""Photometric augmentation of one view: compiled loops over uint8 pixels with Pillow's arithmetic.

The operations and their order are those of the original's chain of torchvision transforms on Pillow
images: flip, color jitter (brightness, contrast, saturation and hue in a drawn order), gray, Gaussian
blur, solarize; values are uint8 between any two of them, rounded as Pillow rounds.

A row is split into three float32 channels and all operations run over it while it is in the cache; only
the mean gray level that contrast needs, and the blur, make further trips necessary. The loops are written
so that LLVM vectorizes them: flat contiguous arrays, no index that could be negative, selections instead
of branches, float32 throughout (numba widens small integers to 64 bits).
"""

import numpy as np

from sslight.views.compiled import BoolArray, Float32Array, Float64Array, Int64Array, UInt8Array, compiled

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


NO_JITTER: Float64Array = np.array([1.0, 1.0, 1.0, 0.0])

_F = np.float32
# Pixels worked on at once: few enough for the first-level cache (24 KB), enough to hide the cost of calls.
_STRIP_PIXELS = 2048


@compiled
def _clip_to_byte(value: np.float32) -> np.float32:
    value = value if value > _F(0) else _F(0)
    return value if value < _F(255) else _F(255)


@compiled
def _floor_to_byte(value: np.float32) -> np.float32:
    return _F(np.floor(_clip_to_byte(value)))


@compiled
def _luma(red: np.float32, green: np.float32, blue: np.float32) -> np.float32:
    # Pillow's L = (19595 R + 38470 G + 7471 B + 2^15) >> 16; every term and the sum are below 2^24, so exact.
    return _F(np.floor((red * _F(19595) + green * _F(38470) + blue * _F(7471) + _F(32768)) * _F(2**-16)))


@compiled
def _widen(source: UInt8Array, target: Float32Array) -> None:
    for x in range(target.shape[0]):
        target[x] = _F(source[x])


@compiled
def _narrow(source: Float32Array, target: UInt8Array) -> None:
    for x in range(target.shape[0]):
        target[x] = np.uint8(np.int32(source[x]))


@compiled
def _blend_with_constant(channel: Float32Array, constant: np.float32, factor: np.float32) -> None:
    for x in range(channel.shape[0]):
        channel[x] = _floor_to_byte(constant + factor * (channel[x] - constant))


@compiled
def _saturate(red: Float32Array, green: Float32Array, blue: Float32Array, factor: np.float32) -> None:
    for x in range(red.shape[0]):
        gray = _luma(red[x], green[x], blue[x])
        red[x] = _floor_to_byte(gray + factor * (red[x] - gray))
        green[x] = _floor_to_byte(gray + factor * (green[x] - gray))
        blue[x] = _floor_to_byte(gray + factor * (blue[x] - gray))


@compiled
def _to_gray(red: Float32Array, green: Float32Array, blue: Float32Array) -> None:
    for x in range(red.shape[0]):
        gray = _luma(red[x], green[x], blue[x])
        red[x] = green[x] = blue[x] = gray


@compiled
def _sum_of_luma(red: Float32Array, green: Float32Array, blue: Float32Array) -> np.int64:
    total = np.int64(0)
    for x in range(red.shape[0]):
        total += np.int32(_luma(red[x], green[x], blue[x]))
    return total


@compiled
def _shift_hue(red: Float32Array, green: Float32Array, blue: Float32Array, shift: np.float32) -> None:
    """Pillow's RGB → HSV (each a byte) → RGB, with ``shift`` (0–255) added to H modulo 256.

    Sorting the channels leaves one formula for all six sextants of the color circle; back again, a channel
    darkens linearly over the second sextant away from its own color, counted in 255ths of a sextant.
    """
    # Pillow floors H and S; without the small term, whole numbers would often end one below.
    tiny = _F(0.0005)
    for x in range(red.shape[0]):
        r, g, b = red[x], green[x], blue[x]
        middle = g if g > b else b
        low = b if g > b else g
        origin = _F(0) if g > b else _F(-255)
        value = r if r > middle else middle
        other = middle if r > middle else r
        origin = origin if r > middle else _F(-85) - origin
        chroma = value - (other if other < low else low)
        turn = origin + (other - low) * (_F(42.5) / (chroma if chroma > _F(1) else _F(1)))
        hue = np.floor((turn if turn > _F(0) else -turn) + tiny) + shift
        hue = _F(6) * (hue if hue < _F(256) else hue - _F(256))
        saturation = np.floor(_F(255) * chroma / (value if value > _F(1) else _F(1)) + tiny)
        loss = value * saturation * _F(1 / 65025)
        rounded = value + _F(0.5)
        red[x] = np.floor(rounded - loss * _clip_to_byte(_F(510) - np.abs(hue - _F(765))))
        green[x] = np.floor(rounded - loss * _clip_to_byte(np.abs(hue - _F(510)) - _F(255)))
        blue[x] = np.floor(rounded - loss * _clip_to_byte(np.abs(hue - _F(1020)) - _F(255)))


@compiled
def _jitter(
    red: Float32Array, green: Float32Array, blue: Float32Array, operation: int, factor: float, mean: np.float32
) -> None:
    if operation == HUE:
        if factor != 0.0:
            # torchvision adds int(255 · factor) to a byte that wraps round.
            _shift_hue(red, green, blue, _F(np.int32(factor * 255.0) & 255))
    elif factor != 1.0:
        if operation == SATURATION:
            _saturate(red, green, blue, _F(factor))
        else:
            constant = mean if operation == CONTRAST else _F(0)
            for channel in (red, green, blue):
                _blend_with_constant(channel, constant, _F(factor))


@compiled
def _sweep(
    planes: UInt8Array, order: Int64Array, factors: Float64Array, mean: np.float32, gray: bool, measure: bool
) -> np.int64:
    """Run the jitter operations in order, and gray, over the planes [3, H · W] of a view, a strip at a time.

    Returns:
        The sum of the gray levels of the result if ``measure``, else 0.
    """
    total = np.int64(0)
    num_pixels = planes.shape[1]
    channels = np.empty((3, _STRIP_PIXELS), np.float32)
    for start in range(0, num_pixels, _STRIP_PIXELS):
        end = min(start + _STRIP_PIXELS, num_pixels)
        red, green, blue = channels[0, : end - start], channels[1, : end - start], channels[2, : end - start]
        for c in range(3):
            _widen(planes[c, start:end], channels[c, : end - start])
        for i in range(order.shape[0]):
            _jitter(red, green, blue, order[i], factors[order[i]], mean)
        if gray:
            _to_gray(red, green, blue)
        if gray or order.shape[0]:
            for c in range(3):
                _narrow(channels[c, : end - start], planes[c, start:end])
        if measure:
            total += _sum_of_luma(red, green, blue)
    return total


@compiled
def recolor(planes: UInt8Array, jitter_order: Int64Array, jitter_factors: Float64Array, gray: BoolArray) -> None:
    """Jitter views in place, then turn some gray.

    Args:
        planes: Pixels [V, 3, H · W], contiguous.
        jitter_order: [V, 4], the operations (``BRIGHTNESS``, ``CONTRAST``, ``SATURATION``, ``HUE``) in the
            order in which they are done.
        jitter_factors: [V, 4], factor of each operation by its number: ≥ 0 for the first three, in turns
            within ± 0.5 for hue. 1 (0 for hue) leaves the operation out.
        gray: [V], whether to replace the colors by their gray level (ITU-R 601, three equal channels).
    """
    for v in range(planes.shape[0]):
        order, factors = jitter_order[v], jitter_factors[v]
        first = 0
        mean = _F(0)
        if factors[CONTRAST] != 1.0:
            # Contrast needs the mean gray level of all that comes before it.
            while order[first] != CONTRAST:
                first += 1
            total = _sweep(planes[v], order[:first], factors, mean, False, True)
            mean = _F(np.floor(total / planes.shape[2] + 0.5))
        if gray[v] or (factors != NO_JITTER).any():
            _sweep(planes[v], order[first:], factors, mean, gray[v], False)


@compiled
def interleave(planes: UInt8Array, solarize: bool, pixels: UInt8Array) -> None:
    """Write the planes [3, H · W] of a view to pixels [H · W, 3]; ``solarize`` inverts values of 128 and above."""
    red, green, blue = planes[0], planes[1], planes[2]
    target = pixels.reshape(-1)
    if solarize:
        for plane in (red, green, blue):
            for x in range(plane.shape[0]):
                plane[x] = plane[x] if plane[x] < 128 else np.uint8(255 - plane[x])
    for x in range(red.shape[0]):
        target[3 * x] = red[x]
        target[3 * x + 1] = green[x]
        target[3 * x + 2] = blue[x]
