"""The batches of views of one epoch, for the training loop."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sslight.config import PretrainSettings
from sslight.data.decoding.decode import decode
from sslight.data.decoding.limits import DEFAULT_LIMITS, ReadLimits
from sslight.data.loading import rows
from sslight.data.loading.orders import BlockOrder, GlobalOrder, Order
from sslight.data.loading.shard_copying import ShardCopying
from sslight.data.loading.shared_batches import Indices, Pixels, SharedBatch
from sslight.data.sources.bad_images import BadImage, BadImageLog
from sslight.data.sources.blocks import has_copies, shard_ends
from sslight.data.sources.source import Source
from sslight.views import MultiCrop, ViewBatch, warm_up


class ViewLoader:
    """View batches of a source, epoch by epoch, the same for any number of workers.

    The order of an epoch is drawn from (seed, epoch), of all images or, with ``window``, of so many shards at a time
    (``BlockOrder``). It is cut into global batches of ``batch_size · world_size`` images, an incomplete last one being
    dropped; each process takes its slice of each. The views of image ``i`` depend on (seed, epoch, i) only. Each step
    gives ``accumulate`` batches of ``batch_size / accumulate`` images.

    An unreadable image is replaced by another one, drawn from (seed, epoch, i), whose views are made as if it were
    image ``i``; ``indices`` and ``labels`` are those of the replacement. ``state_dict`` holds the unreadable images
    met so far. The memory of a batch is used again when the second batch after it is asked for; ``pin_memory``
    locks it for copies to a GPU. With ``scaled_decoding`` large JPEGs are decoded smaller, as far as
    no crop has fewer pixels than its view (see ``decode``). Raises ValueError if the set has less than one global
    batch, or does not lie in shards though a ``window`` of them is asked for.
    """

    def __init__(
        self,
        source: Source,
        multi_crop: MultiCrop,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        accumulate: int = 1,
        max_bad_share: float = 0.01,
        pin_memory: bool = False,
        scaled_decoding: bool = False,
        limits: ReadLimits = DEFAULT_LIMITS,
        window: int | None = None,
    ) -> None:
        assert 0 <= rank < world_size
        assert batch_size % accumulate == 0
        global_batch = batch_size * world_size
        check_enough_images(len(source), global_batch, world_size * accumulate)
        self._source = source
        self._order: Order = GlobalOrder(len(source), seed)
        self._copying: ShardCopying | None = None
        if window is not None:
            ends = shard_ends(source)
            self._order = BlockOrder(ends, window, seed)
            if has_copies(source):
                self._copying = ShardCopying(source, max(1, len(source) * window // (len(ends) * global_batch)))
        self._batch_size, self._global_batch, self._rank = batch_size, global_batch, rank
        self.accumulate, self._part_size = accumulate, batch_size // accumulate
        self._log = BadImageLog(len(source), max_bad_share)
        self.state_dict, self.load_state_dict = self._log.state_dict, self._log.load_state_dict

        def write_views(image: Tensor, arrays: Sequence[Pixels], row: int, epoch: int, wanted: int, index: int) -> None:
            height, width = image.shape[1:]
            parameters = multi_crop.draw(height, width, (seed, epoch, wanted))
            multi_crop.apply_into(image, parameters, arrays[0][:, row], arrays[1][:, row])

        def read(index: int) -> Tensor:
            shrink = multi_crop.most_shrinking if scaled_decoding else None
            return decode(source.read(index), max_pixels=limits.max_pixels, shrink=shrink)

        kinds = ((multi_crop.num_global, multi_crop.global_size), (multi_crop.num_local, multi_crop.local_size))
        self._pool = rows.image_pool(
            source,
            [(number, self._part_size, size, size, 3) for number, size in kinds],
            write_views,
            batch_size=self._part_size,
            workers=workers,
            limits=limits,
            read=read,
            replaced_by=(seed, rows.VIEW_REPLACEMENT),
        )
        self._copies = pin_memory and not self._pool.pin()
        warm_up()  # before the workers are forked, or each would compile for itself

    @property
    def steps_per_epoch(self) -> int:
        return len(self._source) // self._global_batch

    @property
    def bad_images(self) -> list[BadImage]:
        """Every unreadable image that this process met, once, by index."""
        return self._log.images

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[ViewBatch]:
        """The batches of ``epoch`` from ``start_step`` on, ``accumulate`` for each step.

        Raises ValueError when more images are unreadable than ``max_bad_share`` allows, WorkerFailed
        when a worker process dies or spends more than ``limits.timeout`` seconds on an image.
        """
        if self._copying is not None:
            self._copying.start()  # before the workers, which the pool counts
        for filled in self._pool.batches(epoch, self._parts(epoch, start_step)):
            batch = self._view_batch(filled)
            yield batch.pin_memory() if self._copies else batch

    def close(self) -> None:
        """End the worker processes; the loader cannot be used again."""
        self._pool.close()
        if self._copying is not None:
            self._copying.close()

    def _parts(self, epoch: int, start_step: int) -> Iterator[Indices]:
        steps = self._own_share(epoch, start_step)
        if self._copying is not None:
            steps = self._copying.ahead_of(steps, self._own_share(epoch + 1, 0))
        for step in steps:
            yield from (step[start : start + self._part_size] for start in range(0, len(step), self._part_size))

    def _own_share(self, epoch: int, start_step: int) -> Iterator[Indices]:
        first = self._rank * self._batch_size
        for step in self._order.steps(epoch, self._global_batch, start_step):
            yield step[first : first + self._batch_size]

    def _view_batch(self, filled: SharedBatch) -> ViewBatch:
        indices = rows.replaced_indices(filled, self._log)
        labels = self._source.labels
        global_views, local_views = (torch.from_numpy(array).permute(0, 1, 4, 2, 3) for array in filled.arrays)
        return ViewBatch(
            global_views=global_views,
            local_views=local_views if len(local_views) else None,
            indices=torch.from_numpy(indices),
            labels=None if labels is None else torch.from_numpy(labels[indices]),
        )


def check_enough_images(number: int, batch_size: int, parts: int) -> None:
    """Refuse a batch of more images than there are; its ``parts``, of all processes, have two images at least."""
    if batch_size <= number:
        return
    if number < 2 * parts:
        images = f"{number} image{'s' * (number != 1)}"
        each = "" if parts == 1 else f", two for each of {parts} parts of a batch (processes × accumulate)"
        raise ValueError(f"data.train holds {images}: at least {2 * parts} are needed{each}.")
    raise ValueError(
        f"batch_size={batch_size} is more than the {number} images of data.train; "
        f"set batch_size to at most {number // parts * parts} or add images."
    )


def build_view_loader(
    settings: PretrainSettings,
    source: Source,
    multi_crop: MultiCrop,
    *,
    rank: int,
    world_size: int,
    local_world_size: int,
    pin_memory: bool,
) -> ViewLoader:
    """The loader of one of ``world_size`` training processes, ``local_world_size`` of them on this machine."""
    assert settings.batch_size % (world_size * settings.accumulate) == 0  # the training loop's check
    return ViewLoader(
        source,
        multi_crop,
        batch_size=settings.batch_size // world_size,
        seed=settings.seed,
        rank=rank,
        world_size=world_size,
        workers=loader_workers(settings, local_world_size),
        accumulate=settings.accumulate,
        max_bad_share=settings.data.max_bad_share,
        pin_memory=pin_memory,
        scaled_decoding=settings.data.scaled_decoding,
        limits=ReadLimits(settings.data.max_pixels, settings.data.read_timeout),
        window=settings.data.window if settings.data.order == "blocks" else None,
    )


def loader_workers(settings: PretrainSettings, local_world_size: int) -> int:
    """Worker processes of one of ``local_world_size`` training processes on this machine: as set, or as usual."""
    return default_workers(local_world_size) if settings.workers is None else settings.workers


def default_workers(local_world_size: int) -> int:
    """Its share of the cores, of which one is left to the training process itself: the device must never wait."""
    return max(1, available_cores() // local_world_size - 1)


def available_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use, which schedulers restrict by cores and containers by time.

    ``quota`` is where Linux states the time: microseconds of all cores together ("max": no limit)
    and of the period that they are counted in (cgroup v2; without such a file there is no limit).
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text().split()
        return cores if allowed == "max" else max(1, min(cores, int(allowed) // int(period)))
    except (OSError, ValueError):
        return cores
