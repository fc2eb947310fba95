"""In which order the images of an epoch come: the same for any number of processes and workers."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from sslight.data.loading import rows
from sslight.data.loading.shared_batches import Indices


class Order(Protocol):
    """An order of all images that (seed, epoch) decides."""

    def steps(self, epoch: int, batch_size: int, start_step: int) -> Iterator[Indices]:
        """The whole global batches of an epoch from ``start_step`` on, int64 ``[batch_size]`` each."""
        ...


class GlobalOrder:
    """A permutation of all images."""

    def __init__(self, num_images: int, seed: int) -> None:
        self._num_images, self._seed = num_images, seed

    def steps(self, epoch: int, batch_size: int, start_step: int) -> Iterator[Indices]:
        order = rows.keyed_stream(self._seed, epoch, rows.VIEW_ORDER).permutation(self._num_images)
        for step in range(start_step, self._num_images // batch_size):
            yield order[step * batch_size : (step + 1) * batch_size]


class BlockOrder:
    """A permutation of shards, of which ``window`` at a time are taken, and of the images in each such window.

    This is the order that MosaicML streaming calls py1b. ``ends`` are where the images of each shard end. Nothing of
    the size of the set is in memory: a window is drawn when it is needed, from (seed, epoch, window). Within a global
    batch images are in the order of their shards' places in the window, so that each of several processes needs few.
    """

    def __init__(self, ends: Indices, window: int, seed: int) -> None:
        self._ends, self._starts, self._seed = ends, np.concatenate([[0], ends[:-1]]), seed
        self.window = window

    def steps(self, epoch: int, batch_size: int, start_step: int) -> Iterator[Indices]:
        shards = rows.keyed_stream(self._seed, epoch, rows.SHARD_ORDER).permutation(len(self._ends))
        slots = np.argsort(shards) % self.window  # of each shard within its window
        done = np.cumsum((self._ends - self._starts)[shards])[self.window - 1 :: self.window]  # after each whole window
        first = int(np.searchsorted(done, start_step * batch_size, side="right"))
        left_over = start_step * batch_size - (int(done[first - 1]) if first else 0)
        held = np.zeros(0, dtype=np.int64)
        for number in range(first, -(-len(shards) // self.window)):
            images = self.images(epoch, number, shards[number * self.window : (number + 1) * self.window])
            held = np.concatenate([held, images[left_over:]])
            left_over = 0
            for start in range(0, len(held) - batch_size + 1, batch_size):
                batch = held[start : start + batch_size]
                yield batch[np.argsort(slots[np.searchsorted(self._ends, batch, side="right")], kind="stable")]
            held = held[len(held) // batch_size * batch_size :]

    def images(self, epoch: int, number: int, shards: Indices) -> Indices:
        """The images of these shards, window ``number`` of an epoch, in their order."""
        images = np.concatenate([np.arange(self._starts[shard], self._ends[shard]) for shard in shards.tolist()])
        return rows.keyed_stream(self._seed, epoch, rows.WINDOW_ORDER, number).permutation(images)
