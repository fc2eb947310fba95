"""What a set of images is like, from a sample that takes seconds: enough to choose settings by."""

import io
import warnings
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from sslight.data.decoding.codecs import PIL_FORMATS
from sslight.data.decoding.decode import decode
from sslight.data.decoding.limits import DEFAULT_LIMITS, UnreadableImage
from sslight.data.sources.source import Source, evenly_spread

_HEADERS, _DECODED = 256, 24
_SAME_CHANNELS = 4.0  # mean difference of channels, of 255: gray pictures kept as colored JPEGs
_SAME_PICTURE = 0.25  # mean difference of neighbors' thumbnails, of the first one's own spread


@dataclass(frozen=True)
class Glance:
    """A set of images in a few numbers.

    ``short_side``: median of the shorter sides in px; ``megapixels``: median; ``is_gray``: no picture has a color;
    ``alike``: share of images that the next one by name nearly repeats, as frames of a video do.
    """

    num_images: int
    short_side: int
    megapixels: float
    is_gray: bool = False
    alike: float = 0.0


def glance(source: Source, *, max_pixels: int = DEFAULT_LIMITS.max_pixels) -> Glance:
    """Read the headers of up to 256 images, evenly spread, and decode 24 of them and their neighbors.

    Raises ValueError if none can be read.
    """
    shapes = [
        shape for index in evenly_spread(len(source), _HEADERS).tolist() if (shape := _shape(source, index)) is not None
    ]
    if not shapes:
        raise ValueError("none of the sampled images can be read: see `sslight data inspect`.")
    decoded = [_thumbnails(source, index, max_pixels) for index in evenly_spread(len(source), _DECODED).tolist()]
    seen = [each for each in decoded if each is not None]
    return Glance(
        num_images=len(source),
        short_side=int(np.median([min(shape) for shape in shapes])),
        megapixels=float(np.median([height * width for height, width in shapes])) / 1e6,
        is_gray=bool(seen) and all(is_gray for is_gray, _ in seen),
        alike=float(np.mean([is_repeated for _, is_repeated in seen])) if seen else 0.0,
    )


def _shape(source: Source, index: int) -> tuple[int, int] | None:
    """Height and width by the header; EXIF may swap them. None if they cannot be read."""
    try:
        encoded = source.read(index)
    except (UnreadableImage, OSError):
        return None
    with warnings.catch_warnings(), suppress(Exception):  # PIL's readers raise nearly every type on damaged files
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(encoded), formats=PIL_FORMATS) as image:
            return image.height, image.width
    return None


def _thumbnails(source: Source, index: int, max_pixels: int) -> tuple[bool, bool] | None:
    """Whether an image is gray, and whether the next one nearly repeats it."""
    try:
        image = decode(source.read(index), max_pixels=max_pixels)
        following = decode(source.read((index + 1) % len(source)), max_pixels=max_pixels)
    except (UnreadableImage, OSError):
        return None
    channels = image[:, ::4, ::4].float()
    is_gray = bool((channels - channels.mean(0)).abs().mean() < _SAME_CHANNELS)
    first, second = _thumbnail(image), _thumbnail(following)
    spread = np.abs(first - first.mean()).mean()
    return is_gray, bool(len(source) > 1 and np.abs(first - second).mean() < _SAME_PICTURE * spread)


def _thumbnail(image: torch.Tensor) -> npt.NDArray[np.float32]:
    return F.adaptive_avg_pool2d(image[:, ::2, ::2].float().mean(0, keepdim=True), 16).numpy()
