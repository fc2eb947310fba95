"""Encoded bytes to uint8 RGB pixels."""

import io
import re
import warnings
from contextlib import nullcontext

import numpy as np
import numpy.typing as npt
import torch
import torchvision.io
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from sslight.config.fields import MAX_PIXELS
from sslight.data.decoding.headers import ImageHeader, read_header
from sslight.data.decoding.native_messages import captured_messages
from sslight.data.decoding.unreadable import UnreadableImage

MAX_SIDE = 65_535
"""Longest accepted side in px: that of JPEG. Longer strips of few pixels take memory for lines of whole blocks."""

MAX_SCANS = 500
"""Most scans of a JPEG, of which a progressive one has about ten. Each may go over all pixels for a hundred bytes."""

LARGEST_TILE = 4096
"""Px by which a tile of a TIFF may be larger than the picture."""

_START_OF_SCAN = b"\xff\xda"

PIL_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

# The operators are called by themselves because their wrappers warn of deprecation since torchvision 0.29.
_RGB = torchvision.io.ImageReadMode.RGB.value

# libjpeg and libtiff report what they find in damaged data on standard error. For TIFF files, which
# are rare, every line is taken to be libtiff's.
_LIBJPEG_LINE = re.compile(
    rb"Corrupt JPEG|Premature end|Warning: |Inconsistent progression|Invalid |"
    rb"Un(known|recognized) |Application|Obtained"
)
_ANY_LINE = re.compile(b"")
_TIFF_STARTS = (b"II", b"MM")

# What libjpeg prints when a scan ends before the picture does or its codes are nonsense. It then
# fills the rest with grey and reports success, and so does PIL.
_JPEG_DAMAGE = ("premature end", "bad Huffman code")


def decode(encoded: bytes, *, max_pixels: int = MAX_PIXELS) -> torch.Tensor:
    """The picture as uint8 ``[3, H, W]`` RGB, 0–255, in channels-last memory.

    JPEG, PNG, WebP, GIF (first frame), BMP, TIFF and PPM. What happens to pictures that are not
    8-bit RGB: grey is repeated in three channels; palettes are looked up; transparency is dropped,
    which leaves the stored colours (as PIL's ``convert("RGB")``, nothing is composited); CMYK and
    YCCK are converted as PIL does; 16-bit grey is scaled by 1/257 and 16-bit colour keeps its high
    byte (the same within one level), nothing is clipped. EXIF orientation is applied.

    Raises UnreadableImage with a reason of one line if the bytes are no such picture, end early,
    are damaged, or claim more than ``max_pixels`` pixels or a side above 65,535 px (known before
    memory is taken for them).
    """
    if not encoded:
        raise UnreadableImage("the file is empty (0 bytes)")
    header = read_header(encoded)
    if header is not None:
        _refuse_large(header.height, header.width, max_pixels)
        if header.format == "JPEG" and (scans := encoded.count(_START_OF_SCAN)) > MAX_SCANS:
            raise UnreadableImage(f"JPEG: has {scans} scans, more than the limit of {MAX_SCANS}")
    match header:
        case ImageHeader(format="JPEG", channels=1 | 3):
            return _channels_last(_decode_jpeg(encoded))
        case ImageHeader(format="WEBP", is_plain=True):
            return _channels_last(_decode_webp(encoded))
        case _:
            return _decode_with_pil(encoded, max_pixels)


def _decode_jpeg(encoded: bytes) -> torch.Tensor:
    with captured_messages(_LIBJPEG_LINE) as messages:
        try:
            image: torch.Tensor = torch.ops.image.decode_jpeg(_as_tensor(encoded), _RGB, True)  # True: EXIF
        except RuntimeError as error:
            raise UnreadableImage(f"JPEG: {_torchvision_reason(error)}") from error
    for line in messages:
        if any(phrase in line for phrase in _JPEG_DAMAGE):
            raise UnreadableImage(f"JPEG: {line}")
    return image


def _decode_webp(encoded: bytes) -> torch.Tensor:
    try:
        image: torch.Tensor = torch.ops.image.decode_webp(_as_tensor(encoded), _RGB)
    except RuntimeError as error:
        raise UnreadableImage(f"WebP: {_torchvision_reason(error)}") from error
    return image


def _decode_with_pil(encoded: bytes, max_pixels: int) -> torch.Tensor:
    # PNG goes this way too: torchvision's PNG decoder (0.29) ends the process with a segmentation
    # fault on some damaged files, and PIL is only a seventh slower.
    quiet = captured_messages(_ANY_LINE) if encoded.startswith(_TIFF_STARTS) else nullcontext()
    with quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns about what is decided here: size, palettes, EXIF
        try:
            with Image.open(io.BytesIO(encoded), formats=PIL_FORMATS) as image:
                _refuse_large(image.height, image.width, max_pixels)
                if image.format == "TIFF":
                    _refuse_large_tiles(image)
                image.load()
                pixels = _rgb_pixels(ImageOps.exif_transpose(image))
        except UnreadableImage:
            raise
        except Image.DecompressionBombError as error:
            raise UnreadableImage(f"claims more than the limit of {max_pixels:,} pixels") from error
        except UnidentifiedImageError as error:
            raise UnreadableImage("not an image in a known format (JPEG, PNG, WebP, GIF, BMP, TIFF, PPM)") from error
        except Exception as error:  # PIL's readers raise nearly every type on damaged files
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UnreadableImage(f"PIL: {reason}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


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
    return np.array(image.convert("RGB"))


def _as_tensor(encoded: bytes) -> torch.Tensor:
    # torch warns about read-only memory; a copy of the encoded bytes costs about 1 % of decoding.
    return torch.frombuffer(bytearray(encoded), dtype=torch.uint8)


def _channels_last(image: torch.Tensor) -> torch.Tensor:
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def _torchvision_reason(error: RuntimeError) -> str:
    """``function, file:line, reason`` without the first two."""
    return " ".join(str(error).split()).rpartition(", ")[2]


def _refuse_large(height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise UnreadableImage(f"claims {width} × {height} pixels, more than the limit of {max_pixels:,}")
    if max(height, width) > MAX_SIDE:
        raise UnreadableImage(f"claims {width} × {height} pixels, a side of more than {MAX_SIDE:,}")


def _refuse_large_tiles(image: Image.Image) -> None:
    """Refuse a TIFF whose tiles are much larger than the picture, since libtiff takes memory for a whole one."""
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    for tag, side in ((TiffImagePlugin.TILEWIDTH, image.width), (TiffImagePlugin.TILELENGTH, image.height)):
        tile = image.tag_v2.get(tag, 0)
        if isinstance(tile, int) and tile > side + LARGEST_TILE:
            raise UnreadableImage(f"TIFF: claims tiles of {tile} px in a picture of {image.width} × {image.height}")
