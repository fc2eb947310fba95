"""The views of a batch of images, on their way from the workers to the device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from sslight.views.compiled import Float32Array, UInt8Array, compiled


@dataclass(frozen=True)
class ViewBatch:
    """All views of B images, views-major: ``global_views[v, b]`` is view v of image b.

    Attributes:
        global_views: [G, B, 3, S, S] uint8; each image is channels-last in memory.
        local_views: [L, B, 3, s, s] uint8, likewise; None without local views.
        indices: [B] int64, position of each image in its source.
        labels: [B] int64; None for images without labels.
    """

    global_views: Tensor
    local_views: Tensor | None
    indices: Tensor
    labels: Tensor | None

    @property
    def num_global(self) -> int:
        """Global views of each image."""
        return self.global_views.shape[0]

    @property
    def num_local(self) -> int:
        """Local views of each image."""
        return 0 if self.local_views is None else self.local_views.shape[0]

    @property
    def num_images(self) -> int:
        """Images B."""
        return self.indices.shape[0]

    def tensors(self) -> list[Tensor]:
        """All its tensors."""
        return [tensor for tensor in vars(self).values() if tensor is not None]

    def pin_memory(self) -> "ViewBatch":
        """The same batch in page-locked memory (called by torch's DataLoader)."""
        return self._with(Tensor.pin_memory)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "ViewBatch":
        """The same batch on a device; the host does not wait if the batch is pinned and ``non_blocking``."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def _with(self, moved: Callable[[Tensor], Tensor]) -> "ViewBatch":
        local_views, labels = (None if t is None else moved(t) for t in (self.local_views, self.labels))
        return ViewBatch(moved(self.global_views), local_views, moved(self.indices), labels)


def collate(samples: Sequence[tuple[Sequence[Tensor], int, int | None]], *, num_global: int) -> ViewBatch:
    """Put the views of single images together.

    Args:
        samples: For each image its views (uint8 [3, S, S], global ones first), its index and its label.
        num_global: How many of the views are global (their size says nothing about it).

    Raises:
        ValueError: no samples, some images have labels and some not, or differing view counts or sizes.
    """
    if not samples:
        raise ValueError("samples is empty: a batch needs at least one image.")
    counts = {len(views) for views, _, _ in samples}
    if len(counts) != 1 or min(counts) < num_global:
        raise ValueError(
            f"the images have {sorted(counts)} views: all need the same number, at least "
            f"num_global={num_global}; make them with the same MultiCrop."
        )
    labels = [label for _, _, label in samples if label is not None]
    if labels and len(labels) != len(samples):
        raise ValueError(
            f"{len(labels)} of {len(samples)} images have a label: give one to each image, or None to all."
        )
    all_views = [views for views, _, _ in samples]
    return ViewBatch(
        _stack([views[:num_global] for views in all_views]),
        _stack([views[num_global:] for views in all_views]) if counts != {num_global} else None,
        torch.tensor([index for _, index, _ in samples], dtype=torch.int64),
        torch.tensor(labels, dtype=torch.int64) if labels else None,
    )


def _stack(views_by_image: Sequence[Sequence[Tensor]]) -> Tensor:
    """[V, B, 3, S, S] of B lists of V views, channels-last."""
    num_images, num_views = len(views_by_image), len(views_by_image[0])
    pixels = [view.permute(1, 2, 0) for views in zip(*views_by_image, strict=True) for view in views]
    sizes = {tuple(view.shape) for view in pixels}
    if len(sizes) != 1:
        raise ValueError(
            f"views of sizes {sorted(sizes)} are in one group: use one size for global and one for local views."
        )
    stacked = torch.stack(pixels)
    return stacked.view(num_views, num_images, *stacked.shape[1:]).permute(0, 1, 4, 2, 3)


def normalize(
    views: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Network input from pixels: (views / 255 - mean) / std, in float32 whatever ``dtype`` is.

    Args:
        views: [V, B, 3, S, S] uint8.
        mean: Mean of each channel, share of full scale.
        std: Standard deviation of each channel, share of full scale.
        dtype: Type of the result.
        out: Memory for a float32 result, such as that of an earlier step whose gradients are done; on a CPU
            fresh memory costs as much as the arithmetic.

    Returns:
        [V · B, 3, S, S], views-major (all images of view 0, then of view 1, ...), channels-last.

    Raises:
        ValueError: ``out`` is not such memory.
    """
    pixels = views.flatten(0, 1)
    if out is None:
        out = torch.empty(pixels.shape, device=views.device, memory_format=torch.channels_last)
    elif (
        out.shape != pixels.shape
        or out.dtype != torch.float32
        or out.device != views.device
        or not out.is_contiguous(memory_format=torch.channels_last)
    ):
        raise ValueError(
            f"out has shape {tuple(out.shape)} and dtype {out.dtype} on {out.device}: the normalized views are "
            f"float32 {tuple(pixels.shape)} on {views.device}, channels-last; give such memory, or None."
        )
    if views.device.type == "cpu":
        factor, offset = _row_constants(tuple(mean), tuple(std), pixels.shape[3])
        rows = pixels.permute(0, 2, 3, 1).contiguous().numpy().reshape(-1, len(factor))
        _scale_rows(rows, factor, offset, out.permute(0, 2, 3, 1).numpy().reshape(rows.shape))
    else:
        offset_on_device, factor_on_device = _channel_constants(tuple(mean), tuple(std), views.device)
        torch.addcmul(offset_on_device, pixels, factor_on_device, out=out)
    return out.to(dtype)


@compiled
def _scale_rows(pixels: UInt8Array, factor: Float32Array, offset: Float32Array, target: Float32Array) -> None:
    # One pass; torch takes three or four over memory that is larger than the cache.
    for y in range(pixels.shape[0]):
        source, result = pixels[y], target[y]
        for x in range(factor.shape[0]):
            result[x] = np.float32(source[x]) * factor[x] + offset[x]


@lru_cache(maxsize=8)
def _row_constants(mean: tuple[float, ...], std: tuple[float, ...], width: int) -> tuple[Float32Array, Float32Array]:
    """Factor and offset of every value in a row of ``width`` pixels."""
    factor = np.array([1 / (255 * s) for s in std], np.float32)
    offset = np.array([-m / s for m, s in zip(mean, std, strict=True)], np.float32)
    return np.tile(factor, width), np.tile(offset, width)


@lru_cache(maxsize=8)
def _channel_constants(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    # Kept, because a copy of ordinary memory to a GPU makes the host wait.
    factor, offset = (torch.from_numpy(row).to(device).view(1, -1, 1, 1) for row in _row_constants(mean, std, 1))
    return offset, factor
