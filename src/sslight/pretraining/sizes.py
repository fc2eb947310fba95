"""How long a run is, and how large its views and batches are, by the images, the machine and the time allowed.

Nothing here reads a file or a clock.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sslight.backbones import BackboneInfo
from sslight.data import Glance

_SHORT_STEPS = 8_000  # what the _64 forms were made for, by measurement
_BATCHES = {1_000_000: 1024, 100_000: 256, 10_000: 128}  # by number of images, from which on
_WANTED_IMAGES = {1e3: 2e6, 1e4: 8e6, 1e5: 2e7, 1.28e6: 2.56e8}
"""Images that a long run sees, all epochs together, by the number that there are."""

_LEAST_SIDE_OF_A_START = 96


@dataclass(frozen=True)
class Machine:
    """Where a run would train.

    ``memory`` is free for each of its ``processes``, in bytes; ``precision`` is the fastest that this device has.
    """

    device: Literal["cpu", "cuda"]
    name: str
    processes: int
    cores: int
    memory: int
    precision: Literal["32", "bf16", "16"]


@dataclass(frozen=True)
class Start:
    """The weights of ``init_from``: what is known of them, and whether their network has batch norms."""

    info: BackboneInfo
    has_batch_norms: bool


@dataclass(frozen=True)
class Budget:
    """The time allowed: ``hours`` as asked for, ``seconds`` of them that are left to training, and its speed."""

    hours: float
    seconds: float
    seconds_per_pixel: float

    def images(self, pixels: int) -> float:
        """Images that can be seen, of so many view pixels each."""
        return self.seconds / self.seconds_per_pixel / pixels


def view_pixels(side: int, local: int, num_local: int) -> int:
    """Pixels of the views of an image: two global ones and the local ones."""
    return 2 * side**2 + num_local * local**2


def wanted_images(num_images: int) -> float:
    """Images that a long run on so many sees in all its epochs."""
    numbers, seen = np.log(list(_WANTED_IMAGES)), np.log(list(_WANTED_IMAGES.values()))
    inside = min(max(num_images, 1e3), 1.28e6)
    return float(np.exp(np.interp(np.log(inside), numbers, seen))) * num_images / inside


def short_images(num_images: int) -> float:
    """Images that a short run sees."""
    return min(max(_SHORT_STEPS * _smallest_batch(num_images), num_images), wanted_images(num_images))


def natural_side(images: Glance) -> int:
    """Side of a global view that neither enlarges the images nor throws much of them away, in px."""
    if images.short_side < 96:
        return 64
    return 224 if images.short_side >= 200 else images.short_side // 32 * 32


def global_side(
    images: Glance, machine: Machine, budget: Budget | None, patch: int | None, start: Start | None
) -> tuple[int, str]:
    """Side of a global view in px, and why."""
    natural = side = natural_side(images)
    why = f"the images have {images.short_side} px on the shorter side"
    if start is not None and side < _LEAST_SIDE_OF_A_START <= start.info.image_size:
        natural = side = _LEAST_SIDE_OF_A_START
        why = f"{why}, enlarged for weights that were made for {start.info.image_size} px; measured at 96 px"
    if machine.device == "cpu" and natural > 128:
        side, why = 128, f"{why}, and on a CPU 128 px is {(natural / 128) ** 2:.0f} × as fast as {natural}"
    for smaller in (160, 128, 96):
        if budget is None or smaller >= side:
            continue
        if budget.images(view_pixels(side, local_side(side, patch), 2)) < short_images(images.num_images):
            side, why = (
                smaller,
                f"smaller than the {natural} px that suit the images, because the hours allow few steps",
            )
    return side, why


def local_side(side: int, patch: int | None) -> int:
    """SSLight's ratio of local to global side, 128 to 224, in whole patches."""
    step = patch or 4
    return max(8, step * round(side * 128 / 224 / step))


def _smallest_batch(num_images: int) -> int:
    """64, or less where an epoch would have fewer than eight steps."""
    batch = 64
    while batch > 8 and 8 * batch > num_images:
        batch //= 2
    return max(2, min(batch, num_images))


def batch_for(num_images: int, seen: float, processes: int) -> tuple[int, str]:
    """Images in a step over all processes, and why."""
    least = _smallest_batch(num_images)
    batch = next((batch for number, batch in _BATCHES.items() if num_images >= number), least)
    why = "by the number of images"
    if seen / batch < _SHORT_STEPS and batch > least:
        why = f"small, because the number of steps matters: {seen / batch:,.0f} at {batch} would be few"
        while seen / batch < _SHORT_STEPS and batch > least:
            batch //= 2
    return max(2, -(-batch // processes)) * processes, why
