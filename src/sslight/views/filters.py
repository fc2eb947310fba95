"""Weighted sums of lines of pixels, on which resizing and blur rest, as vector code.

LLVM finds the vectors in plain loops only where lines are long and few. These sums keep a block of 64 bytes
of the result in registers while they walk over the lines, whatever their number, which makes them three
times as fast; so they are written as LLVM vectors, which every processor runs in the widths that it has.
Weights and sums are float32; Pillow's are integers of 22 bits, so results are equal but for ties.

Sources and targets may be read and written up to ``SLACK`` bytes beyond what counts.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sslight.views.compiled import BoolArray, Float32Array, Float64Array, Int64Array, UInt8Array, compiled

SLACK = 64
_LANES = SLACK
_BLOCK = 16
_HALF = np.float32(0.5)
_BAND = 2**20
"""Bytes of an image that are turned round at a time, if 64 rows are not more."""

_BYTE, _INT32, _INT64, _FLOAT32 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, vector: Any) -> Any:
    """Pointer to ``vector`` at ``array[index]``."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


@intrinsic  # type: ignore[untyped-decorator]
def _sum_lines(
    typing_context: Any, source: Any, start: Any, pitch: Any, weights: Any, first: Any, step: Any, taps: Any,
    half: Any, target: Any, at: Any,
) -> Any:  # fmt: skip
    """64 bytes ``target[at:]`` = ``half`` + Σ of weights[first + k step] · line k, with lines ``pitch`` apart."""
    places = (types.intp, types.intp)
    signature = types.void(source, *places, weights, *places, types.intp, types.float32, target, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, start, pitch, weights, first, step, taps, half, target, at = arguments
        pixels = ir.VectorType(_BYTE, _LANES)
        integers = ir.VectorType(_INT32, _LANES)
        floats = ir.VectorType(_FLOAT32, _LANES)

        def constant(value: float) -> Any:
            return ir.Constant(floats, [value] * _LANES)

        def splat(value: Any) -> Any:
            lane = builder.insert_element(ir.Constant(floats, ir.Undefined), value, ir.Constant(_INT32, 0))
            return builder.shuffle_vector(lane, lane, ir.Constant(integers, [0] * _LANES))

        rounding = splat(half)

        before = builder.block
        loop = builder.append_basic_block("lines")
        after = builder.append_basic_block("rounding")
        builder.branch(loop)
        builder.position_at_end(loop)
        k, line, weight, total = (builder.phi(t) for t in (_INT64, _INT64, _INT64, floats))
        address = _address(context, builder, signature.args[0], source, line, pixels)
        values = builder.uitofp(builder.zext(builder.load(address, align=1), integers), floats)
        address = _address(context, builder, signature.args[3], weights, weight, _FLOAT32)
        # "contract" allows one rounding for both, where the processor has such an instruction.
        product = builder.fmul(values, splat(builder.load(address)), flags=["contract"])
        new_total = builder.fadd(product, total, flags=["contract"])
        new_k = builder.add(k, ir.Constant(_INT64, 1))
        for phi, initial, following in (
            (k, ir.Constant(_INT64, 0), new_k),
            (line, start, builder.add(line, pitch)),
            (weight, first, builder.add(weight, step)),
            (total, rounding, new_total),
        ):
            phi.add_incoming(initial, before)
            phi.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", new_k, taps), loop, after)
        builder.position_at_end(after)
        low, high = constant(0.0), constant(255.0)
        clipped = builder.select(builder.fcmp_ordered(">", new_total, low), new_total, low)
        clipped = builder.select(builder.fcmp_ordered("<", clipped, high), clipped, high)
        result = builder.trunc(builder.fptosi(clipped, integers), pixels)
        builder.store(result, _address(context, builder, signature.args[8], target, at, pixels), align=1)
        return context.get_dummy_value()

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def _transpose_block(
    typing_context: Any, source: Any, start: Any, pitch: Any, target: Any, at: Any, target_pitch: Any
) -> Any:
    """Turn the 16 × 16 bytes at ``source[start]``, with rows ``pitch`` apart, into those at ``target[at]``."""
    signature = types.void(source, types.intp, types.intp, target, types.intp, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, start, pitch, target, at, target_pitch = arguments
        row = ir.VectorType(_BYTE, _BLOCK)
        order = ir.VectorType(_INT32, _BLOCK)
        half = _BLOCK // 2

        def address(number: int, array: Any, offset: Any, distance: Any, index: int) -> Any:
            place = builder.add(offset, builder.mul(distance, ir.Constant(_INT64, index)))
            return _address(context, builder, signature.args[number], array, place, row)

        rows = [builder.load(address(0, source, start, pitch, i), align=1) for i in range(_BLOCK)]
        # Four times, row i is interleaved with row i + 8: each moves one bit of the row number into the column.
        zipped = [(i // 2) + (i % 2) * _BLOCK for i in range(_BLOCK)]
        for _ in range(4):
            rows = [
                builder.shuffle_vector(
                    rows[i // 2], rows[i // 2 + half], ir.Constant(order, [j + half * (i % 2) for j in zipped])
                )
                for i in range(_BLOCK)
            ]
        for i, values in enumerate(rows):
            builder.store(values, address(3, target, at, target_pitch, i), align=1)
        return context.get_dummy_value()

    return signature, generate


@compiled
def _round_up(value: int, multiple: int) -> int:
    return (value + multiple - 1) // multiple * multiple


@compiled
def _pitch(height: int) -> int:
    # An odd number of cache lines: columns then spread over all sets of the cache.
    return _round_up(height, 64) | 64


@compiled
def _copy(source: UInt8Array, target: UInt8Array) -> None:
    # numba's assignment of slices looks for overlaps and shapes first: ten times as slow for a row.
    for x in range(target.shape[0]):
        target[x] = source[x]


@compiled
def _transpose(
    pixels: UInt8Array, top: int, left: int, height: int, width: int, columns: UInt8Array, pitch: int
) -> None:
    """Turn a part of the bytes [H, W] into ``columns`` (flat [width, pitch]), the rows into lines."""
    flat, line = pixels.reshape(-1), pixels.shape[1]
    if height < _BLOCK or width < _BLOCK:
        for y in range(height):
            for x in range(width):
                columns[x * pitch + y] = flat[(top + y) * line + left + x]
        return
    for y in range(0, height, _BLOCK):
        for x in range(0, width, _BLOCK):
            # Blocks that would stick out overlap their neighbors instead.
            row, column = min(y, height - _BLOCK), min(x, width - _BLOCK)
            _transpose_block(flat, (top + row) * line + left + column, line, columns, column * pitch + row, pitch)


@compiled
def _bicubic(length: int, size: int) -> tuple[Int64Array, Float32Array]:
    """Where each of ``size`` values begins to read in ``length`` values, and its weights [taps, size].

    Keys' cubic with a = -0.5, widened when shrinking, and cut off at the ends (libImaging/Resample.c).
    """
    scale = length / size
    spread = max(scale, 1.0)
    support = 2.0 * spread
    taps = min(length, int(np.ceil(2.0 * support)))
    first = np.empty(size, np.int64)
    weights = np.empty((taps, size), np.float32)
    total = np.zeros(size, np.float64)
    for x in range(size):
        begin = np.ceil((x + 0.5) * scale - support - 0.5)
        first[x] = np.int64(min(max(begin, 0.0), float(length - taps)))
    for k in range(taps):
        row = weights[k]
        for x in range(size):
            t = np.abs((first[x] + k + 0.5) - (x + 0.5) * scale) / spread
            near = (1.5 * t - 2.5) * t * t + 1.0
            far = ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0
            weight = near if t < 1.0 else far
            weight = weight if t < 2.0 else 0.0
            row[x] = np.float32(weight)
            total[x] += weight
    for k in range(taps):
        row = weights[k]
        for x in range(size):
            row[x] = np.float32(row[x] / total[x])
    return first, weights


@compiled
def resize_boxes(
    pixels: UInt8Array, boxes: Int64Array, flip: BoolArray, first_planes: UInt8Array, other_planes: UInt8Array
) -> None:
    """Resize boxes of an image, and mirror them: along the rows first, with bytes in between, as Pillow 9.

    The image is turned round in bands of rows that fit into a processor's cache, and only where boxes are.

    Args:
        pixels: The image, [H, W, 3], contiguous.
        boxes: (top, left, height, width) in px, [V, 4].
        flip: Whether to mirror the result left to right, [V].
        first_planes: The results of the first boxes, [F, 3, height, width], contiguous.
        other_planes: The results of the others, [V - F, 3, height, width], contiguous; of another size.
    """
    image_height, image_width = pixels.shape[0], pixels.shape[1]
    band = min(image_height, max(_LANES, _BAND // (3 * image_width) // _LANES * _LANES))
    columns = np.empty(3 * image_width * _pitch(band) + SLACK, np.uint8)
    num_first = first_planes.shape[0]
    widths = [(first_planes if v < num_first else other_planes).shape[3] for v in range(boxes.shape[0])]
    kernels = [_bicubic(boxes[v, 3], widths[v]) for v in range(boxes.shape[0])]
    # Each box, narrowed but as tall as it was: rows of three colors, each of whole blocks.
    narrowed = [
        np.empty((boxes[v, 2] + _BLOCK) * 3 * _round_up(widths[v], _BLOCK) + SLACK, np.uint8)
        for v in range(boxes.shape[0])
    ]
    for top in range(0, image_height, band):
        left, right = image_width, 0
        for box in boxes:
            if box[0] < top + band and box[0] + box[2] > top:
                left, right = min(left, box[1]), max(right, box[1] + box[3])
        if left >= right:
            continue
        left = max(0, min(left, right - _BLOCK))
        begin = min(top, image_height - band)  # the last band overlaps the one before
        flat = pixels.reshape(image_height, 3 * image_width)
        _transpose(flat, begin, 3 * left, band, 3 * (right - left), columns, _pitch(band))
        for v, box in enumerate(boxes):
            first, last = max(top, box[0]), min(top + band, box[0] + box[2])
            if first < last:
                at = 3 * (box[1] - left) * _pitch(band) + first - begin
                row = first - box[0]
                _narrow(columns, at, _pitch(band), last - first, kernels[v], flip[v], narrowed[v], row, widths[v])
    for v, box in enumerate(boxes):
        planes = first_planes[v] if v < num_first else other_planes[v - num_first]
        _shorten(narrowed[v], box[2], planes)


@compiled
def _narrow(
    columns: UInt8Array, at: int, pitch: int, height: int, kernel: tuple[Int64Array, Float32Array], flip: bool,
    rows: UInt8Array, row: int, new_width: int,
) -> None:  # fmt: skip
    """Resize the ``height`` rows from ``columns[at]`` on along themselves, to those of ``rows`` from ``row`` on."""
    first, weights = kernel
    flat_weights = weights.reshape(-1)
    taps = weights.shape[0]
    line = _round_up(new_width, _BLOCK)
    tall = _round_up(height, _LANES)
    narrow = np.empty(_BLOCK * tall, np.uint8)
    for c in range(3):
        for block in range(0, new_width, _BLOCK):
            for j in range(min(_BLOCK, new_width - block)):
                x = new_width - 1 - block - j if flip else block + j
                start = at + (3 * first[x] + c) * pitch
                for y in range(0, height, _LANES):
                    _sum_lines(
                        columns, start + y, 3 * pitch, flat_weights, x, new_width, taps, _HALF, narrow, j * tall + y
                    )
            for y in range(0, height, _BLOCK):
                _transpose_block(narrow, y, tall, rows, (3 * (row + y) + c) * line + block, 3 * line)


@compiled
def _shorten(rows: UInt8Array, height: int, planes: UInt8Array) -> None:
    """Resize ``height`` rows along the columns to planes [3, new height, new width]."""
    new_height, new_width = planes.shape[1], planes.shape[2]
    line = _round_up(new_width, _BLOCK)
    first, weights = _bicubic(height, new_height)
    flat_weights = weights.reshape(-1)
    result = np.empty(3 * line + SLACK, np.uint8)
    for y in range(new_height):
        for x in range(0, 3 * line, _LANES):
            start = 3 * line * first[y] + x
            _sum_lines(rows, start, 3 * line, flat_weights, y, new_height, weights.shape[0], _HALF, result, x)
        for c in range(3):
            _copy(result[c * line : c * line + new_width], planes[c, y])


@compiled
def _box_weights(radius: float) -> Float32Array:
    """The box filter of which Pillow runs three passes for a Gaussian of this standard deviation.

    Whole pixels around the center and one of less weight at either end (Gwosdek et al., SSVM 2011;
    libImaging/BoxBlur.c, float32 and 24-bit weights as there).
    """
    variance = radius * radius / 3
    whole = np.floor((np.sqrt(12.0 * variance + 1.0) - 1.0) / 2.0)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    box_radius = np.float32(whole + part)
    reach = int(box_radius)
    weight = int(np.float32(1 << 24) / (box_radius * np.float32(2) + np.float32(1)))
    weights = np.full(2 * reach + 3, weight / (1 << 24), np.float32)
    weights[0] = weights[-1] = ((1 << 24) - (2 * reach + 1) * weight) // 2 / (1 << 24)
    return weights


@compiled
def _box_pass(source: UInt8Array, target: UInt8Array, at: int, num: int, step: int, weights: Float32Array) -> None:
    """Filter ``num`` bytes, whose neighbors are ``step`` apart, from ``source[0]`` on to ``target[at]`` on."""
    # Pillow's 24-bit weights may add up to one bit less than 1, and a tie then rounds down; exact ties are
    # common for some radii (1 px: weights 1/6, 2/3, 1/6), and float32 alone would round half of them up.
    taps = weights.shape[0]
    total = 0
    for k in range(taps):
        total += int(weights[k] * np.float32(1 << 24))
    half = np.float32(0.5) if total == 1 << 24 else np.float32(0.5 - 2**-15)
    for i in range(0, num, SLACK):
        _sum_lines(source, i, step, weights, 0, 1, taps, half, target, at + i)


@compiled
def _blur_plane(plane: UInt8Array, weights: Float32Array) -> None:
    """Blur [H, W] in place: three box filters along the rows, then three along the columns."""
    # Room on all sides, which repeats the border, lets a pass run over the whole plane as one line.
    pad = weights.shape[0] // 2
    height, width = plane.shape
    pitch = width + 2 * pad
    first, last = pad * pitch + pad, (height + pad - 1) * pitch + pad
    size = (height + 2 * pad) * pitch
    source, target = np.empty(size + SLACK, np.uint8), np.empty(size + SLACK, np.uint8)
    for y in range(height):
        start = first + y * pitch
        _copy(plane[y], source[start : start + width])
    for _ in range(3):
        for start in range(first, last + 1, pitch):
            for i in range(pad):
                source[start - 1 - i] = source[start]
                source[start + width + i] = source[start + width - 1]
        _box_pass(source[first - pad :], target, first, last + width - first, 1, weights)
        source, target = target, source
    for _ in range(3):
        for i in range(pad):
            _copy(source[first : first + width], source[first - (i + 1) * pitch : first - (i + 1) * pitch + width])
            _copy(source[last : last + width], source[last + (i + 1) * pitch : last + (i + 1) * pitch + width])
        _box_pass(source[pad:], target, first, last + width - first, pitch, weights)
        source, target = target, source
    for y in range(height):
        start = first + y * pitch
        _copy(source[start : start + width], plane[y])


@compiled
def blur(planes: UInt8Array, radii: Float64Array) -> None:
    """Blur views [V, 3, H, W] in place, as ``PIL.ImageFilter.GaussianBlur`` of each radius [V] in px; 0 does not."""
    for v in range(planes.shape[0]):
        if radii[v] > 0.0:
            weights = _box_weights(radii[v])
            for c in range(3):
                _blur_plane(planes[v, c], weights)
