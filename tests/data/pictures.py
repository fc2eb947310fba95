"""Small real image files for the tests of this room."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

import sslight.data  # noqa: F401 - teaches PIL to write HEIC


def smooth_pixels(height: int = 48, width: int = 64, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Photograph-like colours, uint8 ``[H, W, 3]``."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """The image as a file's bytes."""
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def jpeg(seed: int = 0, height: int = 48, width: int = 64) -> bytes:
    """A JPEG file of smooth colours."""
    return encode(Image.fromarray(smooth_pixels(height, width, seed)), "JPEG", quality=90)


def write_class_folders(root: Path, counts: dict[str, int]) -> Path:
    """``root/<class>/<number>.jpg``, each picture another one."""
    seed = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number:03d}.jpg").write_bytes(jpeg(seed))
            seed += 1
    return root
