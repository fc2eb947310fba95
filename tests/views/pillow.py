"""The same views made by Pillow and torchvision, as the original made them, and images to make them from."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torchvision.transforms.functional as tv
from PIL import Image, ImageFilter, ImageOps

from sslight.views import ViewParameters

Pixels = npt.NDArray[np.uint8]

_ADJUST: tuple[Callable[[Image.Image, float], Image.Image], ...] = (
    tv.adjust_brightness,
    tv.adjust_contrast,
    tv.adjust_saturation,
    tv.adjust_hue,
)


def photograph(height: int, width: int, seed: int) -> Pixels:
    """Noise of all scales with strong colours, [H, W, 3]: like a photograph for filters."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float64)
    for cells in (2, 4, 8, 16, 32, 64):
        coarse = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        total += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)) / cells**0.7
    total = (total - total.mean()) / total.std() * 64 + 120 + rng.normal(0, 3, total.shape)
    return np.asarray(total.clip(0, 255), dtype=np.uint8)


def pillow_resize(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize to (height, width) with Pillow, along the rows first.

    Pillow 9, with which the original ran, always did so; Pillow 13 shrinks most tall images along the columns
    first, and the rounding between the two passes then changes a fifth of all values by one.
    """
    height, width = size
    narrowed = Image.fromarray(image).resize((width, image.shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(narrowed.resize((width, height), Image.Resampling.BICUBIC))


def pillow_crop(image: Pixels, box: tuple[int, int, int, int], size: int) -> Pixels:
    """Cut a box (top, left, height, width) and resize it to a square with Pillow."""
    top, left, height, width = box
    return pillow_resize(image[top : top + height, left : left + width], (size, size))


def pillow_jitter(image: Pixels, operation: int, factor: float) -> Pixels:
    """One operation of torchvision's ColorJitter on a Pillow image."""
    return np.asarray(_ADJUST[operation](Image.fromarray(image), factor))


def pillow_blur(image: Pixels, radius: float) -> Pixels:
    """Pillow's Gaussian blur."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def pillow_view(image: Pixels, parameters: ViewParameters, v: int, size: int) -> Pixels:
    """View v as the original's chain makes it from the same parameters."""
    top, left, height, width = parameters.boxes[v].tolist()
    view = Image.fromarray(pillow_crop(image, (top, left, height, width), size))
    if parameters.flip[v]:
        view = tv.hflip(view)
    if parameters.jitter[v]:
        for operation in parameters.jitter_order[v]:
            view = _ADJUST[operation](view, float(parameters.jitter_factors[v, operation]))
    if parameters.gray[v]:
        view = tv.to_grayscale(view, num_output_channels=3)
    if parameters.blur_sigma[v] > 0:
        view = view.filter(ImageFilter.GaussianBlur(float(parameters.blur_sigma[v])))
    if parameters.solarize[v]:
        view = ImageOps.solarize(view, threshold=128)
    return np.asarray(view)


def mean_difference(a: Pixels, b: Pixels) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(a.astype(np.int64) - b).mean())


def bias(a: Pixels, b: Pixels) -> float:
    """Mean difference a - b in grey levels."""
    return float((a.astype(np.int64) - b).mean())
