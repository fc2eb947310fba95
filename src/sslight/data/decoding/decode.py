"""Encoded bytes to uint8 RGB pixels."""

import io
import re
import warnings
from collections.abc import Callable
from contextlib import nullcontext, suppress

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from sslight.config.schema.fields import MAX_PIXELS
from sslight.data.decoding.codecs import PIL_FORMATS, Decoder, decode_jpeg, decode_webp
from sslight.data.decoding.headers import has_more_scans_than, jpeg_size
from sslight.data.decoding.limits import UnreadableImage, one_line
from sslight.data.decoding.native_messages import captured_messages

MAX_SIDE = 65_535
"""Longest accepted side in px: that of JPEG. Longer strips of few pixels take memory for lines of whole blocks."""

MAX_SCANS = 500
"""Most scans of a JPEG, of which a progressive one has about ten. Each may go over all pixels for a hundred bytes."""

LARGEST_TILE = 4096  # Px by which a tile of a TIFF may be larger than the picture

# libjpeg and libtiff report what they find in damaged data on standard error. For TIFF files, which
# are rare, every line is taken to be libtiff's.
_LIBJPEG_LINE = re.compile(
    rb"Corrupt JPEG|Premature end|Warning: |Inconsistent progression|Invalid |"
    rb"Un(known|recognized) |Application|Obtained"
)
_ANY_LINE = re.compile(b"")
_TIFF_STARTS = (b"II", b"MM")

# What libjpeg prints when a scan ends before the picture does or its codes are nonsense. It then
# fills the rest with gray and reports success, and so does PIL.
_JPEG_DAMAGE = ("premature end", "bad Huffman code")

# The entry of EXIF in the list of an AVIF file's items (ISO/IEC 14496-12, 8.11.6). libavif refuses a picture whose
# EXIF is no directory, and reads it where that is an item of a type that it does not know.
_AVIF_EXIF = re.compile(rb"(infe\x02.{7})Exif", re.DOTALL)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_UNKNOWN = "not an image in a known format (JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, HEIC, AVIF, JPEG 2000)"

_TIFF_TAGS = {277: 1, 258: 1, 339: 1, 262: -1}
"""Bands, their bits, format of samples and photometric interpretation, and what a file without the tag means."""

_SAMPLE_FORMATS = {1: "whole numbers", 2: "signed whole numbers", 3: "floating-point numbers"}
_PHOTOMETRIC = {0: "WhiteIsZero", 1: "BlackIsZero", 2: "RGB", 3: "a palette", 5: "CMYK", 6: "YCbCr", 8: "CIELAB"}


def decode(
    encoded: bytes, *, max_pixels: int = MAX_PIXELS, shrink: Callable[[int, int], float] | None = None
) -> torch.Tensor:
    """The picture as uint8 ``[3, H, W]`` RGB, 0–255, in channels-last memory.

    JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, HEIC, AVIF and JPEG 2000; of several pictures the first or primary one.
    What happens to pictures that are not 8-bit RGB: gray is repeated in three channels; palettes are looked up;
    transparency is laid over white; CMYK and YCCK are converted as PIL does; 16-bit gray is scaled by 1/257 and
    16-bit color keeps its high byte (the same within one level), nothing is clipped. EXIF orientation is
    applied; one that cannot be read is none.

    ``shrink(height, width)`` says how many times smaller a JPEG may become; it is decoded at the half, quarter or
    eighth of its sides that is no smaller, from the low frequencies of its blocks alone. Damage within its data, other
    than a missing end, is then not noticed.

    Raises UnreadableImage with a reason of one line if the bytes are no such picture, end early,
    are damaged, or claim more than ``max_pixels`` pixels or a side above 65,535 px (known before
    memory is taken for them).
    """
    if not encoded:
        raise UnreadableImage("the file is empty (0 bytes)")
    if (size := jpeg_size(encoded)) is None:
        return _decode_with_pil(encoded, max_pixels)
    height, width, channels = size
    _refuse_large(height, width, max_pixels)
    if has_more_scans_than(MAX_SCANS, encoded):
        raise UnreadableImage(f"JPEG: has more than the limit of {MAX_SCANS} scans")
    factor = 1.0 if shrink is None else max(1.0, shrink(height, width))
    if channels not in (1, 3) or factor >= 2:
        return _decode_with_pil(encoded, max_pixels, factor)
    with captured_messages(_LIBJPEG_LINE) as messages:
        image = _decode_with(decode_jpeg, encoded, "JPEG")
    for line in messages:
        if any(phrase in line for phrase in _JPEG_DAMAGE):
            raise UnreadableImage(f"JPEG: {line}")
    return image


def _decode_with(decoder: Decoder, encoded: bytes, kind: str) -> torch.Tensor:
    try:
        # torch warns about read-only memory; a copy of the encoded bytes costs about 1 % of decoding.
        image = decoder(torch.frombuffer(bytearray(encoded), dtype=torch.uint8))
    except RuntimeError as error:
        reason = one_line(error).rpartition(", ")[2]  # of "function, file:line, reason"
        raise UnreadableImage(f"{kind}: {reason}") from error
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def _is_animated_webp(encoded: bytes) -> bool:
    """Whether a WebP file says that it is an animation, be it of one frame (RFC 9649, 2.7.1)."""
    return encoded[12:16] == b"VP8X" and bool(encoded[20] & 2)


def _decode_with_pil(encoded: bytes, max_pixels: int, factor: float = 1.0) -> torch.Tensor:
    # PNG goes this way too: torchvision's PNG decoder (0.29) ends the process with a segmentation
    # fault on some damaged files, and PIL is only a seventh slower.
    is_tiff = encoded.startswith(_TIFF_STARTS)
    with captured_messages(_ANY_LINE) if is_tiff else nullcontext(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns about what is decided here: size, palettes, EXIF
        try:
            with Image.open(io.BytesIO(encoded), formats=PIL_FORMATS) as image:
                _refuse_large(image.height, image.width, max_pixels)
                if image.format == "TIFF":
                    _refuse_large_tiles(image)
                is_plain = image.mode == "RGB" and "exif" not in image.info and not _is_animated_webp(encoded)
                if is_plain and isinstance(image, WebPImagePlugin.WebPImageFile):
                    return _decode_with(decode_webp, encoded, "WebP")  # a quarter faster
                divisor = next(divisor for divisor in (8, 4, 2, 1) if divisor <= factor)
                image.draft(None, (image.width // divisor, image.height // divisor))
                image.load()
                turn = _TURNS.get(_orientation(image))
                pixels = _rgb_pixels(image if turn is None else image.transpose(turn))
        except UnreadableImage:
            raise
        except Image.DecompressionBombError as error:
            raise UnreadableImage(f"claims more than the limit of {max_pixels:,} pixels") from error
        except UnidentifiedImageError as error:
            raise UnreadableImage(_tiff_content(encoded) if is_tiff else _UNKNOWN) from error
        except Exception as error:  # PIL's readers raise nearly every type on damaged files
            if "Invalid Exif payload" in str(error) and _AVIF_EXIF.search(encoded):
                return _decode_with_pil(_AVIF_EXIF.sub(rb"\1none", encoded), max_pixels)
            raise UnreadableImage(f"PIL: {one_line(error) or type(error).__name__}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 if there is none or it cannot be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # PIL's readers of metadata raise nearly every type, too
        return 1


def format_mode_and_orientation(encoded: bytes) -> tuple[str, str, int]:
    """Format and mode in PIL's words, and EXIF orientation (1 for none), of a picture that :func:`decode` takes."""
    with warnings.catch_warnings(), suppress(Exception):  # what another decoder reads, PIL may not
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(encoded), formats=PIL_FORMATS) as image:
            return str(image.format), image.mode, _orientation(image)
    return "unknown", "unknown", 1


def _rgb_pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Writable uint8 ``[H, W, 3]``."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > 0xFFFF):
            raise UnreadableImage("its 32-bit pixels have no known range; store it with 8 or 16 bits")
        gray = ((values + 128) // 257).astype(np.uint8)  # rounds v / 257
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise UnreadableImage("its floating-point pixels have no known range; store it with 8 or 16 bits")
    if image.has_transparency_data:
        # Colors under full transparency are often all black. White is what most viewers show there.
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _tiff_content(encoded: bytes) -> str:
    """What a TIFF holds that PIL has no mode for."""
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(encoded[: 16 if encoded[2] == 43 else 8])  # 43: BigTIFF
        file = io.BytesIO(encoded)
        file.seek(tags.next)
        tags.load(file)
        bands, bits, kind, meaning = (int(np.ravel(tags.get(tag, missing))[0]) for tag, missing in _TIFF_TAGS.items())
    except Exception:  # as above
        return _UNKNOWN
    if not tags:
        return _UNKNOWN
    return (
        f"TIFF: holds {bands} bands of {bits}-bit {_SAMPLE_FORMATS.get(kind, 'unknown values')} marked "
        f"as {_PHOTOMETRIC.get(meaning, 'an unknown interpretation')}, which is not supported; "
        "store it as RGB of 8 bits or gray of 8 or 16 bits"
    )


def _refuse_large(height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise UnreadableImage(f"claims {width} × {height} pixels, more than the limit of {max_pixels:,}")
    if max(height, width) > MAX_SIDE:
        raise UnreadableImage(f"claims {width} × {height} pixels, with a side above {MAX_SIDE:,}")


def _refuse_large_tiles(image: Image.Image) -> None:
    """Refuse a TIFF whose tiles are much larger than the picture, since libtiff takes memory for a whole one."""
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    for tag, side in ((TiffImagePlugin.TILEWIDTH, image.width), (TiffImagePlugin.TILELENGTH, image.height)):
        tile = image.tag_v2.get(tag, 0)
        if isinstance(tile, int) and tile > side + LARGEST_TILE:
            raise UnreadableImage(f"TIFF: claims tiles of {tile} px in a picture of {image.width} × {image.height}")
