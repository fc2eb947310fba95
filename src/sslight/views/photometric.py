"""Photometric augmentation of one view: compiled loops over uint8 pixels with Pillow's arithmetic.

The operations and their order are those of the original's chain of torchvision transforms on Pillow
images: flip, colour jitter (brightness, contrast, saturation and hue in a drawn order), grey, Gaussian
blur, solarise; values are uint8 between any two of them, rounded as Pillow rounds.

A row is split into three float32 channels and all operations run over it while it is in the cache; only
the mean grey level that contrast needs, and the blur, make further trips necessary. The loops are written
so that LLVM vectorises them: flat contiguous arrays, no index that could be negative, selections instead
of branches, float32 throughout (numba widens small integers to 64 bits).
"""

import numpy as np
import numpy.typing as npt

from sslight.views.blur import blur
from sslight.views.compiled import compiled

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]

DRAWING_ORDER: Int64Array = np.arange(4, dtype=np.int64)
NO_JITTER: Float64Array = np.array([1.0, 1.0, 1.0, 0.0])

_F = np.float32
# Pixels worked on at once: few enough for the first-level cache (24 KB), enough to hide the cost of calls.
_STRIP_PIXELS = 2048


@compiled
def _floor_to_byte(value: np.float32) -> np.float32:
    value = value if value > _F(0) else _F(0)
    return _F(np.floor(value if value < _F(255) else _F(255)))


@compiled
def _luma(red: np.float32, green: np.float32, blue: np.float32) -> np.float32:
    # Pillow's L = (19595 R + 38470 G + 7471 B + 2^15) >> 16; every term and the sum are below 2^24, so exact.
    return _F(np.floor((red * _F(19595) + green * _F(38470) + blue * _F(7471) + _F(32768)) * _F(2**-16)))


@compiled
def _widen(channel8: UInt8Array, width: int, flip: bool, channel: Float32Array) -> None:
    if flip:
        for start in range(0, channel.shape[0], width):
            last = start + width - 1
            for x in range(width):
                channel[np.uint64(start + x)] = _F(channel8[np.uint64(last - x)])
    else:
        for x in range(channel.shape[0]):
            channel[x] = _F(channel8[x])


@compiled
def _load(
    pixels: UInt8Array, width: int, flip: bool, red: Float32Array, green: Float32Array, blue: Float32Array
) -> None:
    """Split the interleaved pixels of whole rows into channels."""
    # Splitting bytes first and widening them afterwards is twice as fast as both at once.
    n = red.shape[0]
    planes = np.empty(3 * n, np.uint8)
    red8, green8, blue8 = planes[:n], planes[n : 2 * n], planes[2 * n :]
    for x in range(n):
        red8[x] = pixels[3 * x]
        green8[x] = pixels[3 * x + 1]
        blue8[x] = pixels[3 * x + 2]
    _widen(red8, width, flip, red)
    _widen(green8, width, flip, green)
    _widen(blue8, width, flip, blue)


@compiled
def _store(red: Float32Array, green: Float32Array, blue: Float32Array, pixels: UInt8Array) -> None:
    for x in range(red.shape[0]):
        pixels[3 * x] = np.uint8(np.int32(red[x]))
        pixels[3 * x + 1] = np.uint8(np.int32(green[x]))
        pixels[3 * x + 2] = np.uint8(np.int32(blue[x]))


@compiled
def _blend_with_constant(channel: Float32Array, constant: np.float32, factor: np.float32) -> None:
    for x in range(channel.shape[0]):
        channel[x] = _floor_to_byte(constant + factor * (channel[x] - constant))


@compiled
def _saturate(red: Float32Array, green: Float32Array, blue: Float32Array, factor: np.float32) -> None:
    for x in range(red.shape[0]):
        grey = _luma(red[x], green[x], blue[x])
        red[x] = _floor_to_byte(grey + factor * (red[x] - grey))
        green[x] = _floor_to_byte(grey + factor * (green[x] - grey))
        blue[x] = _floor_to_byte(grey + factor * (blue[x] - grey))


@compiled
def _to_grey(red: Float32Array, green: Float32Array, blue: Float32Array) -> None:
    for x in range(red.shape[0]):
        grey = _luma(red[x], green[x], blue[x])
        red[x] = grey
        green[x] = grey
        blue[x] = grey


@compiled
def _sum_of_luma(red: Float32Array, green: Float32Array, blue: Float32Array) -> np.int64:
    total = np.int64(0)
    for x in range(red.shape[0]):
        total += np.int32(_luma(red[x], green[x], blue[x]))
    return total


@compiled
def _clip_to_byte(value: np.float32) -> np.float32:
    value = value if value > _F(0) else _F(0)
    return value if value < _F(255) else _F(255)


@compiled
def _shift_hue(red: Float32Array, green: Float32Array, blue: Float32Array, shift: np.float32) -> None:
    """Pillow's RGB → HSV (each a byte) → RGB, with ``shift`` (0–255) added to H modulo 256.

    Sorting the channels leaves one formula for all six sextants of the colour circle; back again, a channel
    darkens linearly over the second sextant away from its own colour, counted in 255ths of a sextant.
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
    red: Float32Array,
    green: Float32Array,
    blue: Float32Array,
    operation: int,
    factor: float,
    mean: np.float32,
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
            _blend_with_constant(red, constant, _F(factor))
            _blend_with_constant(green, constant, _F(factor))
            _blend_with_constant(blue, constant, _F(factor))


@compiled
def _sweep(
    source: UInt8Array,
    target: UInt8Array,
    width: int,
    flip: bool,
    order: Int64Array,
    factors: Float64Array,
    mean: np.float32,
    grey: bool,
    measure: bool,
) -> np.int64:
    """Run the jitter operations in order, and grey, over flat HWC pixels, some rows at a time.

    Returns:
        The sum of the grey levels of the result if ``measure``, else 0.
    """
    total = np.int64(0)
    strip = width * max(1, _STRIP_PIXELS // width)
    channels = np.empty((3, strip), np.float32)
    for start in range(0, source.shape[0], 3 * strip):
        end = min(start + 3 * strip, source.shape[0])
        n = (end - start) // 3
        red, green, blue = channels[0, :n], channels[1, :n], channels[2, :n]
        _load(source[start:end], width, flip, red, green, blue)
        for i in range(order.shape[0]):
            _jitter(red, green, blue, order[i], factors[order[i]], mean)
        if grey:
            _to_grey(red, green, blue)
        _store(red, green, blue, target[start:end])
        if measure:
            total += _sum_of_luma(red, green, blue)
    return total


@compiled
def _jitter_and_grey(
    source: UInt8Array,
    target: UInt8Array,
    width: int,
    flip: bool,
    order: Int64Array,
    factors: Float64Array,
    grey: bool,
) -> None:
    if factors[CONTRAST] == 1.0:
        _sweep(source, target, width, flip, order, factors, _F(0), grey, False)
        return
    # Contrast needs the mean grey level of all that comes before it.
    first = 0
    while order[first] != CONTRAST:
        first += 1
    total = _sweep(source, target, width, flip, order[:first], factors, _F(0), False, True)
    mean = np.floor(total / (target.shape[0] // 3) + 0.5)
    _sweep(target, target, width, False, order[first:], factors, _F(mean), grey, False)


@compiled
def _solarise(pixels: UInt8Array) -> None:
    for i in range(pixels.shape[0]):
        pixels[i] = pixels[i] if pixels[i] < 128 else np.uint8(255 - pixels[i])


def augment_view(
    source: UInt8Array,
    target: UInt8Array,
    *,
    flip: bool = False,
    jitter_order: Int64Array = DRAWING_ORDER,
    jitter_factors: Float64Array = NO_JITTER,
    grey: bool = False,
    blur_radius: float = 0.0,
    solarise: bool = False,
) -> None:
    """Write the augmented ``source`` to ``target``: flip, jitter, grey, blur, solarise, in this order.

    Args:
        source: Pixels [H, W, 3], contiguous.
        target: Memory for the result, of the same shape, contiguous; not ``source`` itself.
        flip: Mirror left to right.
        jitter_order: The four operations (``BRIGHTNESS``, ``CONTRAST``, ``SATURATION``, ``HUE``) in the
            order in which they are done.
        jitter_factors: Factor of each operation by its number: ≥ 0 for the first three, in turns within
            ± 0.5 for hue. 1 (0 for hue) leaves the operation out.
        grey: Replace the colours by their grey level (ITU-R 601, three equal channels).
        blur_radius: Standard deviation of the Gaussian in px; 0 does not blur.
        solarise: Invert values of 128 and above.

    Raises:
        ValueError: shapes differ, or memory is not contiguous.
    """
    for name, pixels in (("source", source), ("target", target)):
        if pixels.shape != source.shape or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ValueError(
                f"{name} has shape {pixels.shape} and dtype {pixels.dtype}: source and target must both be "
                f"uint8 of one shape [height, width, 3]; make them so."
            )
        if not pixels.flags.c_contiguous:
            raise ValueError(f"{name} is not contiguous: pass numpy.ascontiguousarray of it.")
    width = source.shape[1]
    result = target.reshape(-1)
    _jitter_and_grey(source.reshape(-1), result, width, flip, jitter_order, jitter_factors, grey)
    if blur_radius > 0.0:
        blur(target, blur_radius)
    if solarise:
        _solarise(result)


def warm_up() -> None:
    """Compile all kernels, or load them from numba's cache: seconds the first time, then well below one.

    Call it before worker processes are forked, so that they inherit the machine code.
    """
    pixels = np.zeros((4, 4, 3), np.uint8)
    augment_view(pixels, pixels.copy(), jitter_factors=np.array([1.1, 1.1, 1.1, 0.1]), blur_radius=1.0, solarise=True)
