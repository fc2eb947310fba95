"""Batches of resized images with their boxes and masks, for training a detector and for measuring it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sslight.data.decoding.limits import DEFAULT_LIMITS, ReadLimits
from sslight.data.detection.instances import AnnotatedImage, DetectionSet, targets_at
from sslight.data.loading import rows
from sslight.data.loading.shared_batches import Indices, Pixels, SharedBatchPool
from sslight.data.sources.bad_images import BadImage, BadImageLog

_FLIP_PROB = 0.5


@dataclass(frozen=True)
class DetectionBatch:
    """Pixels of images of differing size, uint8 [3, h, w], their positions in the set, and what to find in them.

    ``targets`` are as ``targets_at`` gives them, and empty when measuring. The memory of the images is used again
    when the second batch after this one is asked for.
    """

    images: list[Tensor]
    targets: list[dict[str, Tensor]]
    indices: Tensor

    def to(self, device: torch.device, non_blocking: bool = True) -> "DetectionBatch":

        def moved(tensor: Tensor) -> Tensor:
            if device.type == "cuda":
                tensor = tensor.pin_memory()
            return tensor.to(device, non_blocking=non_blocking)

        targets = [{name: moved(value) for name, value in target.items()} for target in self.targets]
        return DetectionBatch([moved(image) for image in self.images], targets, self.indices)

    def tensors(self) -> list[Tensor]:
        return [*self.images, *(value for target in self.targets for value in target.values())]


def resized_size(height: int, width: int, shorter: int, longest: int) -> tuple[int, int]:
    """Height and width once the shorter side is ``shorter``, or, if the other then passed ``longest``, that one it."""
    scale = min(shorter / min(height, width), longest / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


class DetectionLoader:
    """Training batches, epoch by epoch, the same for any number of workers.

    The order of an epoch depends on (seed, epoch); each batch over all processes has only wide or only tall images
    as far as their numbers allow, which saves padding. Size and flip of image ``i`` depend on (seed, epoch, i).
    An unreadable image, or one that is not as large as annotated, is replaced by another one.

    All ``images`` have something to learn from. ``sizes`` of the shorter side, one of which is drawn, and the
    ``longest`` longer side are in px. ``batch_size`` counts images of this process. ``state_dict`` holds the
    unreadable images met so far. Raises ValueError for fewer images than one batch takes.
    """

    def __init__(
        self,
        images: DetectionSet,
        *,
        sizes: Sequence[int],
        longest: int,
        masks: bool,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        max_bad_share: float = 0.01,
        limits: ReadLimits = DEFAULT_LIMITS,
    ) -> None:
        self._set, self._masks, self._batch_size, self._seed, self._rank = images, masks, batch_size, seed, rank
        self._global_batch = batch_size * world_size
        if self._global_batch > len(images):
            raise ValueError(
                f"batch_size={self._global_batch} is more than the {len(images)} images of {images.split} that have "
                f"objects: set batch_size={len(images)} or less."
            )
        self._draw = _drawn(sizes, longest, seed)
        self._log = BadImageLog(len(images), max_bad_share, "max_bad_share")
        self.state_dict, self.load_state_dict = self._log.state_dict, self._log.load_state_dict
        self._pool = _pool(
            images,
            self._draw,
            largest=_largest(images, max(sizes), longest),
            batch_size=batch_size,
            workers=workers,
            limits=limits,
            replaced_by=(seed, rows.DETECTION_REPLACEMENT),
        )
        self.close = self._pool.close
        self._wide = np.array([image.width >= image.height for image in images.images])

    @property
    def steps_per_epoch(self) -> int:
        return len(self._set) // self._global_batch

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[DetectionBatch]:
        """The batches of this process in ``epoch``, from ``start_step`` on.

        Raises ValueError when more images are unreadable than is accepted.
        """
        first = self._rank * self._batch_size
        own = (batch[first : first + self._batch_size] for batch in self._order(epoch)[start_step:])
        for filled in self._pool.batches(epoch, own):
            indices = rows.replaced_indices(filled, self._log, "data")
            images, targets = [], []
            for pixels, index in zip(filled.arrays[0], indices.tolist(), strict=False):
                image = self._set.images[index]
                height, width, flip = self._draw(image, epoch, index)
                images.append(_as_image(pixels, height, width))
                targets.append(targets_at(image, height, width, flip=flip, masks=self._masks))
            yield DetectionBatch(images, targets, torch.from_numpy(indices))

    def _order(self, epoch: int) -> list[Indices]:
        stream = rows.keyed_stream(self._seed, epoch, rows.DETECTION_ORDER)
        order = stream.permutation(len(self._set))
        batches, rest = [], []
        for group in (order[self._wide[order]], order[~self._wide[order]]):
            whole = len(group) // self._global_batch * self._global_batch
            batches += [group[start : start + self._global_batch] for start in range(0, whole, self._global_batch)]
            rest.append(group[whole:])
        mixed = np.concatenate(rest)
        batches += [mixed[: self._global_batch]] if len(mixed) >= self._global_batch else []
        return [batches[position] for position in stream.permutation(len(batches))]


def measured_images(
    images: DetectionSet,
    *,
    size: int,
    longest: int,
    indices: Indices,
    workers: int,
    bad: list[BadImage],
    limits: ReadLimits = DEFAULT_LIMITS,
) -> Iterator[DetectionBatch]:
    """The images of ``indices`` one by one, at one size and without targets.

    One by one, because the padding of a batch changes what is found in it. An unreadable image is left
    out and added to ``bad``.
    """

    def draw(image: AnnotatedImage, epoch: int, index: int) -> tuple[int, int, bool]:
        return *resized_size(image.height, image.width, size, longest), False

    largest = _largest(images, size, longest)
    with closing(_pool(images, draw, largest=largest, batch_size=1, workers=workers, limits=limits)) as pool:
        for filled in pool.batches(0, indices[:, None]):
            bad += filled.bad
            for index in filled.indices.tolist():
                height, width, _ = draw(images.images[index], 0, index)
                yield DetectionBatch([_as_image(filled.arrays[0][0], height, width)], [], torch.tensor([index]))


Draw = Callable[[AnnotatedImage, int, int], tuple[int, int, bool]]
"""``draw(image, epoch, index)``: height and width in px, and whether the image is mirrored."""


def _drawn(sizes: Sequence[int], longest: int, seed: int) -> Draw:
    def draw(image: AnnotatedImage, epoch: int, index: int) -> tuple[int, int, bool]:
        stream = rows.keyed_stream(seed, epoch, rows.DETECTION_CHANGES, index)
        size = sizes[int(stream.integers(len(sizes)))]
        return *resized_size(image.height, image.width, size, longest), bool(stream.random() < _FLIP_PROB)

    return draw


def _pool(images: DetectionSet, draw: Draw, *, largest: int, limits: ReadLimits, **options: Any) -> SharedBatchPool:
    """Rows of ``largest`` bytes, filled with the pixels [h, w, 3] of resized images."""

    def write(image: Tensor, arrays: Sequence[Pixels], row: int, epoch: int, wanted: int, index: int) -> None:
        height, width, flip = draw(images.images[index], epoch, index)
        resized = F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0]
        resized = resized.flip(2) if flip else resized
        arrays[0][row, : height * width * 3] = resized.permute(1, 2, 0).reshape(-1).numpy()

    read = partial(images.decode, max_pixels=limits.max_pixels)
    shapes = [(options["batch_size"], largest)]
    return rows.image_pool(images, shapes, write, read=read, limits=limits, **options)


def _largest(images: DetectionSet, size: int, longest: int) -> int:
    """Bytes of the largest image of a set after resizing."""
    return max(
        3 * height * width
        for height, width in {resized_size(image.height, image.width, size, longest) for image in images.images}
    )


def _as_image(pixels: Pixels, height: int, width: int) -> Tensor:
    return torch.from_numpy(pixels[: height * width * 3]).view(height, width, 3).permute(2, 0, 1)
