"""What the header of a JPEG says, read before a decoder takes memory for it."""

import re
import struct

import numpy as np

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff[^\x00\xff\x01\xd0-\xd8]", re.DOTALL)
"""A marker with a length, or the end of the image; in the data of a scan no byte 0xFF is followed by one of these."""


def jpeg_size(encoded: bytes) -> tuple[int, int, int] | None:
    """Height, width and channels of a JPEG file (ITU T.81, B.2.2); None for all else or if broken."""
    if not encoded.startswith(b"\xff\xd8\xff"):
        return None
    position = 2
    while 0 <= position <= len(encoded) - 10:
        marker = encoded[position + 1]
        if encoded[position] != 0xFF:  # stray bytes between segments, which libjpeg skips
            position = encoded.find(b"\xff", position)
        elif marker in (0x00, 0xFF):
            position += 1
        elif marker in _START_OF_FRAME:
            height, width, channels = struct.unpack_from(">HHB", encoded, position + 5)
            return height, width, channels
        elif marker in (_START_OF_SCAN, _END_OF_IMAGE):
            return None
        elif marker in _WITHOUT_LENGTH:
            position += 2
        else:
            position += 2 + int.from_bytes(encoded[position + 2 : position + 4])
    return None


def has_more_scans_than(limit: int, encoded: bytes) -> bool:
    """Whether the JPEG that begins the bytes has more scans; what follows it, such as a video, is not looked at."""
    content = np.frombuffer(encoded, np.uint8)
    if np.count_nonzero((content[:-1] == 0xFF) & (content[1:] == _START_OF_SCAN)) <= limit:
        return False  # fast, and the truth can only be less
    scans, position = 0, 2
    while scans <= limit and (found := _MARKER.search(encoded, position)):
        position = found.end()
        marker = encoded[position - 1]
        if marker == _END_OF_IMAGE:
            break
        scans += marker == _START_OF_SCAN
        position += int.from_bytes(encoded[position : position + 2])
    return scans > limit
