"""Drawn images whose classes are patterns, for a first run without any data."""

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from sslight.data.sources.source import UNLABELED

Plane = npt.NDArray[np.floating]  # ``[H, W]``

TILT = 0.12  # Largest rotation to either side, in radians
PERIOD = (8.0, 22.0)  # Shortest and longest side of one cell of the pattern, in px at 64 px
NOISE = np.float32(0.1)
"""Width of the uniform noise on each channel, of full scale; one for all images, or it would tell them apart."""

_SPLITS = ("train", "val")


def _ring(distance: Plane, radius: float, half_width: float) -> Plane:
    band: Plane = np.abs(distance - np.float32(radius)) - np.float32(half_width)
    return band


def _square_norm(u: Plane, v: Plane) -> Plane:
    return np.maximum(np.abs(u), np.abs(v))


# Each gives the signed distance to the drawn shape (negative inside) in one cell, u and v being
# -0.5 to 0.5 from left to right and from top to bottom. All look the same in a mirror.
PATTERNS: dict[str, Callable[[Plane, Plane], Plane]] = {
    "checks": lambda u, v: (
        np.where(u * v > 0, -1, 1) * np.minimum(np.minimum(np.abs(u), np.abs(v)), 0.5 - _square_norm(u, v))
    ),
    "columns": lambda u, v: np.abs(u) - 0.22,
    "crosses": lambda u, v: np.maximum(np.minimum(np.abs(u), np.abs(v)) - 0.1, _square_norm(u, v) - 0.38),
    "diamonds": lambda u, v: (np.abs(u) + np.abs(v) - 0.42) * 0.7,
    "discs": lambda u, v: np.hypot(u, v) - 0.33,
    "frames": lambda u, v: _ring(_square_norm(u, v), 0.3, 0.08),
    "rings": lambda u, v: _ring(np.hypot(u, v), 0.28, 0.08),
    "rows": lambda u, v: np.abs(v) - 0.22,
    "triangles": lambda u, v: np.maximum(2 * np.abs(u) - v - 0.3, v - 0.33) * 0.6,
    "waves": lambda u, v: np.abs(v - 0.2 * np.cos(2 * np.pi * u)) - 0.11,
}


class SyntheticSource:
    """``num_images`` drawn square pictures as JPEG bytes; the class is the kind of pattern.

    Colors, which change over the picture, contrast, scale, phase, tilt and noise are drawn for each image and say
    nothing about the class. A mirrored image keeps its class, and a tenth of its area shows it. Image ``index``
    depends on seed, split and index only. Raises ValueError for a number of classes that there is not.
    """

    def __init__(
        self,
        num_images: int,
        *,
        size: int = 64,
        num_classes: int = 10,
        seed: int = 0,
        split: str = "train",
        labeled: bool = True,
    ) -> None:
        if not 2 <= num_classes <= len(PATTERNS):
            raise ValueError(f"num_classes={num_classes} of the synthetic set must be 2 to {len(PATTERNS)}")
        self._num_images = num_images
        self._seed = seed
        self._split = split
        self._size = size
        self._kinds = tuple(PATTERNS)[:num_classes]
        axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
        self._y, self._x = (np.ascontiguousarray(plane) for plane in np.meshgrid(axis, axis, indexing="ij"))
        self.classes, self.labels = (self._kinds, np.arange(num_images) % num_classes) if labeled else UNLABELED

    def __len__(self) -> int:
        return self._num_images

    def read(self, index: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(self._draw(index)).save(file, "JPEG", quality=95)
        return file.getvalue()

    def name(self, index: int) -> str:
        if not 0 <= index < self._num_images:
            raise IndexError(index)
        return f"{self._kinds[index % len(self._kinds)]}/{index:07d}.jpg"

    def locate(self, index: int) -> str:
        return f"synthetic:{self._split}:{self.name(index)}"

    def _draw(self, index: int) -> npt.NDArray[np.uint8]:
        """uint8 ``[size, size, 3]``."""
        key = np.random.SeedSequence((self._seed, _SPLITS.index(self._split), index))
        rng = np.random.Generator(np.random.Philox(key))
        tilt = rng.uniform(-TILT, TILT)
        cells = 64 / np.exp(rng.uniform(*np.log(PERIOD)))
        inside = self._inside(PATTERNS[self._kinds[index % len(self._kinds)]], tilt, cells, rng)
        background = self._color_field(rng)
        contrast = rng.uniform(0.3, 0.6)
        picture = background + np.float32(contrast) * (inside - inside.mean())[:, :, None]
        noise = rng.random(picture.shape, dtype=np.float32) - np.float32(0.5)
        picture += noise * NOISE
        pixels: npt.NDArray[np.uint8] = (picture.clip(0, 1) * 255 + 0.5).astype(np.uint8)
        return pixels

    def _color_field(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Colors at 4 × 4 points and the mixtures between: ``[size, size, 3]``, within 0.1 to 0.9.

        Two crops of one picture differ in color, so that color does not tell which picture it was.
        """
        colors = torch.from_numpy(rng.uniform(0.1, 0.9, size=(1, 3, 4, 4)).astype(np.float32))
        field = F.interpolate(colors, size=(self._size, self._size), mode="bilinear", align_corners=True)
        pixels: npt.NDArray[np.float32] = field[0].permute(1, 2, 0).numpy()
        return pixels

    def _inside(
        self, distance: Callable[[Plane, Plane], Plane], tilt: float, cells: float, rng: np.random.Generator
    ) -> Plane:
        """How far each pixel lies inside the shape, 0–1 with soft edges."""
        along, across = np.float32(cells * np.cos(tilt)), np.float32(cells * np.sin(tilt))
        phase = rng.random(2, dtype=np.float32)
        u = self._x * along - self._y * across + phase[0]
        v = self._x * across + self._y * along + phase[1]
        u -= np.floor(u) + np.float32(0.5)
        v -= np.floor(v) + np.float32(0.5)
        pixels_a_cell = np.float32(self._size / cells)
        inside: Plane = np.clip(np.float32(0.5) - distance(u, v).astype(np.float32) * pixels_a_cell, 0, 1)
        return inside
