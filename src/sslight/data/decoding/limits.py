"""What reading and decoding one image may take."""

import os
from dataclasses import dataclass
from pathlib import Path

from sslight.config.fields import MAX_PIXELS, READ_TIMEOUT
from sslight.data.decoding.unreadable import UnreadableImage
from sslight.reading import read_ordinary

MAX_ENCODED_BYTES = 2**30
"""Bytes of an encoded image at most."""


@dataclass(frozen=True)
class ReadLimits:
    """Largest image in px (width × height), and seconds that a worker may spend on one."""

    max_pixels: int = MAX_PIXELS
    timeout: float = READ_TIMEOUT


DEFAULT_LIMITS = ReadLimits()


def read_image_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an image file. Raises OSError, or UnreadableImage for what is no file or too large for an image."""
    try:
        return read_ordinary(Path(path), largest=MAX_ENCODED_BYTES)
    except ValueError as error:
        raise UnreadableImage(str(error)) from None
