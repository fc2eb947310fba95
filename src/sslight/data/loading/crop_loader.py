"""One random crop of every image in every epoch, for classifiers that are trained on crops."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslight.data.decoding.limits import DEFAULT_LIMITS, ReadLimits
from sslight.data.loading import rows
from sslight.data.loading.shared_batches import Indices, Pixels
from sslight.data.sources.bad_images import BadImage, BadImageLog
from sslight.data.sources.source import Source
from sslight.views import MultiCrop, warm_up

_ASPECT_RATIO, _FLIP_PROB = (3 / 4, 4 / 3), 0.5


@dataclass(frozen=True)
class CropBatch:
    """A part of a step's images.

    ``images [B, 3, S, S]`` uint8 and ``indices [B]`` (position in the source), B may be 0; ``ends_step``
    in the last part of a step. The images' memory is used again when the second batch after it is asked for.
    """

    images: Tensor
    indices: Tensor
    ends_step: bool = True

    def to(self, device: torch.device, non_blocking: bool = True) -> "CropBatch":
        parts = [t.pin_memory() if device.type == "cuda" else t for t in (self.images, self.indices)]
        images, indices = (t.to(device, non_blocking=non_blocking) for t in parts)
        return CropBatch(images, indices, self.ends_step)

    def tensors(self) -> list[Tensor]:
        return [self.images, self.indices]


class CropLoader:
    """Random resized crops (area ``scale``, sides 3:4 to 4:3, bicubic) and flips, as the field trains classifiers.

    A crop depends on (seed, epoch, index) only, and the order of an epoch on (seed, epoch). Each process takes its
    share of each step. Unreadable images are left out.

    ``size`` is the side of a crop in px and ``batch_size`` the images in a step over all processes, of which
    ``part_size`` are given at once (None: a process's whole share). An incomplete last batch of an epoch is
    left out if it has fewer than ``smallest_step`` images. ``state_dict`` holds the unreadable images met so far.
    """

    def __init__(
        self,
        source: Source,
        *,
        size: int,
        scale: tuple[float, float] = (0.08, 1.0),
        batch_size: int,
        part_size: int | None = None,
        smallest_step: int = 1,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int,
        max_bad_share: float = 0.01,
        limits: ReadLimits = DEFAULT_LIMITS,
    ) -> None:
        self._source, self._size, self._seed, self._batch_size = source, size, seed, batch_size
        self._rank, self._world_size = rank, world_size
        share = -(-min(batch_size, len(source)) // world_size)
        self._part_size = part_size = share if part_size is None else min(part_size, share)
        rest = len(source) % batch_size
        self._num_used = len(source) - rest if rest < smallest_step else len(source)
        self._log = BadImageLog(len(source), max_bad_share)
        self.state_dict, self.load_state_dict = self._log.state_dict, self._log.load_state_dict
        crop = MultiCrop(
            num_global=1,
            num_local=0,
            global_size=size,
            global_scale=scale,
            aspect_ratio=_ASPECT_RATIO,
            flip_prob=_FLIP_PROB,
            jitter_prob=0.0,
            grayscale_prob=0.0,
            blur_prob=(0.0, 0.0, 0.0),
            solarize_prob=(0.0, 0.0),
        )

        def write_crop(image: Tensor, arrays: Sequence[Pixels], row: int, epoch: int, wanted: int, index: int) -> None:
            height, width = image.shape[1:]
            parameters = crop.draw(height, width, (seed, epoch, index))
            crop.apply_into(image, parameters, arrays[0][row : row + 1], None)

        shapes = [(part_size, size, size, 3)]
        self._pool = rows.image_pool(source, shapes, write_crop, batch_size=part_size, workers=workers, limits=limits)
        self.close = self._pool.close
        warm_up()  # before the workers are forked, or each would compile for itself

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, an incomplete last one included."""
        return -(-self._num_used // self._batch_size)

    @property
    def bad_images(self) -> list[BadImage]:
        """Every unreadable image that this process met, once, by index."""
        return self._log.images

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[CropBatch]:
        """The crops of an epoch from ``start_step`` on; ValueError if too many images are unreadable."""
        steps = [list(self._parts(step)) for step in list(self._steps(epoch))[start_step:]]
        filled = self._pool.batches(epoch, (part for parts in steps for part in parts))
        for parts in steps:
            for number, _ in enumerate(parts, start=1):
                batch = next(filled)
                self._log.add(len(batch.rows), batch.bad)
                yield CropBatch(batch.square_images(), torch.from_numpy(batch.indices), number == len(parts))
            if not parts:  # the others of this step wait for this process
                nothing = torch.zeros(0, 3, self._size, self._size, dtype=torch.uint8)
                yield CropBatch(nothing, torch.zeros(0, dtype=torch.int64))

    def _steps(self, epoch: int) -> Iterator[Indices]:
        """The images of every step that fall to this process."""
        order = rows.keyed_stream(self._seed, epoch, rows.CROP_ORDER).permutation(len(self._source))[: self._num_used]
        for start in range(0, len(order), self._batch_size):
            yield np.array_split(order[start : start + self._batch_size], self._world_size)[self._rank]

    def _parts(self, indices: Indices) -> Iterator[Indices]:
        for start in range(0, len(indices), self._part_size):
            yield indices[start : start + self._part_size]
