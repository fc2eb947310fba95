"""What reading and decoding one image may take."""

from dataclasses import dataclass
from pathlib import Path

from sslight.config.schema.fields import MAX_PIXELS, READ_TIMEOUT
from sslight.reading import read_ordinary

MAX_ENCODED_BYTES = 2**30  # Bytes of an encoded image at most


def one_line(error: Exception) -> str:
    """Why something failed, as the operating system or else the error says it, without line breaks."""
    return (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())


class UnreadableImage(ValueError):
    """An image that cannot be decoded; the text is the reason, in one line and without the name."""


@dataclass(frozen=True)
class ReadLimits:
    """Largest image in px (width × height), and seconds that a worker may spend on one."""

    max_pixels: int = MAX_PIXELS
    timeout: float = READ_TIMEOUT


DEFAULT_LIMITS = ReadLimits()


def read_image_file(path: str | Path) -> bytes:
    """The bytes of an image file. Raises OSError, or UnreadableImage for what is no file or too large for an image."""
    try:
        return read_ordinary(path, largest=MAX_ENCODED_BYTES)
    except ValueError as error:
        raise UnreadableImage(str(error)) from None
