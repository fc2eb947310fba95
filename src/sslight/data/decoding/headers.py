"""What the first bytes of an image say, read before a decoder takes memory for it."""

import re
import struct
from dataclasses import dataclass
from typing import Literal

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff[^\x00\xff\x01\xd0-\xd8]", re.DOTALL)
"""A marker with a length, or the end of the image; in the data of a scan no byte 0xFF is followed by one of these."""


@dataclass(frozen=True)
class ImageHeader:
    """Format and size of a picture; ``is_plain`` if it has neither EXIF orientation, frames nor transparency."""

    format: Literal["JPEG", "WEBP"]
    height: int
    width: int
    channels: int = 3
    is_plain: bool = True


def read_header(encoded: bytes) -> ImageHeader | None:
    """Header of a JPEG (ITU T.81, B.2.2) or WebP (RFC 9649) file; None for all else or if broken."""
    if encoded.startswith(b"\xff\xd8\xff"):
        return _jpeg_header(encoded)
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return _webp_header(encoded)
    return None


def _jpeg_header(encoded: bytes) -> ImageHeader | None:
    position = 2
    while 0 <= position <= len(encoded) - 10:
        marker = encoded[position + 1]
        if encoded[position] != 0xFF:  # stray bytes between segments, which libjpeg skips
            position = encoded.find(b"\xff", position)
        elif marker in (0x00, 0xFF):
            position += 1
        elif marker in _START_OF_FRAME:
            height, width, channels = struct.unpack_from(">HHB", encoded, position + 5)
            return ImageHeader("JPEG", height, width, channels)
        elif marker in (_START_OF_SCAN, _END_OF_IMAGE):
            return None
        elif marker in _WITHOUT_LENGTH:
            position += 2
        else:
            position += 2 + int.from_bytes(encoded[position + 2 : position + 4])
    return None


def has_more_scans_than(limit: int, encoded: bytes) -> bool:
    """Whether the JPEG that begins the bytes has more scans; what follows it, such as a video, is not looked at."""
    if encoded.count(b"\xff\xda") <= limit:  # fast, and the truth can only be less
        return False
    scans, position = 0, 2
    while scans <= limit and (found := _MARKER.search(encoded, position)):
        position = found.end()
        marker = encoded[position - 1]
        if marker == _END_OF_IMAGE:
            break
        scans += marker == _START_OF_SCAN
        position += int.from_bytes(encoded[position : position + 2])
    return scans > limit


def _webp_header(encoded: bytes) -> ImageHeader | None:
    kind, body = encoded[12:16], encoded[20:30]
    if len(body) < 10:
        return None
    if kind == b"VP8X":
        width = 1 + int.from_bytes(body[4:7], "little")
        height = 1 + int.from_bytes(body[7:10], "little")
        has_alpha_exif_or_frames = bool(body[0] & 0b0001_1010)
        return ImageHeader("WEBP", height, width, is_plain=not has_alpha_exif_or_frames)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", body, 6)
        return ImageHeader("WEBP", height & 0x3FFF, width & 0x3FFF)
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return ImageHeader("WEBP", 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF), is_plain=not bits >> 28 & 1)
    return None
