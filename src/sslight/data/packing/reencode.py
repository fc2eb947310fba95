"""What is stored of an image: its own bytes, or a smaller JPEG."""

import io
from dataclasses import dataclass

from PIL import Image

from sslight.config.schema.fields import MAX_PIXELS
from sslight.data.decoding.decode import decode, format_mode_and_orientation
from sslight.data.decoding.headers import jpeg_size
from sslight.data.sources.suffixes import is_image

QUALITY = 95
SUBSAMPLING = "4:4:4"
"""Views enlarge parts of what is stored, shift its hue and stretch its saturation. At 4:2:0 half of the
color's resolution is lost before that, and the quality steps below 95 show blocks when a local view
enlarges them; docs/data.md has the sizes."""

_JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")


@dataclass(frozen=True)
class Stored:
    """The bytes to store and the name to store them under; ``reencoded`` if they are not the image's own."""

    name: str
    encoded: bytes
    reencoded: bool


def reencode(name: str, encoded: bytes, short_side: int | None, max_pixels: int = MAX_PIXELS) -> Stored:
    """Check that an image can be decoded, and make it smaller if its shorter side is above ``short_side`` px.

    A smaller copy is upright, 8-bit RGB, resized with PIL's antialiased bicubic filter, and a JPEG
    without metadata. All others keep their bytes, EXIF orientation included. A name gets a suffix
    where it does not tell the format. Raises UnreadableImage, also for more than ``max_pixels`` pixels.
    """
    pixels = decode(encoded, max_pixels=max_pixels)
    height, width = pixels.shape[1:]
    if short_side is None or min(height, width) <= short_side:
        return Stored(name if is_image(name) else name + _suffix(encoded), encoded, reencoded=False)
    scale = short_side / min(height, width)
    size = max(short_side, round(width * scale)), max(short_side, round(height * scale))
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, subsampling=SUBSAMPLING, optimize=True)
    is_named_jpeg = name.lower().endswith(_JPEG_SUFFIXES)
    return Stored(name if is_named_jpeg else name + _JPEG_SUFFIXES[0], file.getvalue(), reencoded=True)


def _suffix(encoded: bytes) -> str:
    kind = "JPEG" if jpeg_size(encoded) else format_mode_and_orientation(encoded)[0]
    return {"JPEG": ".jpg", "MPO": ".jpg", "JPEG2000": ".jp2", "HEIF": ".heic"}.get(kind, f".{kind.lower()}")
