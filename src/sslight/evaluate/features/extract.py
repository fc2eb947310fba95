"""Features of the centre view of every image of a source."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sslight.backbones import num_features
from sslight.data import DEFAULT_LIMITS, BadImage, ReadLimits, Source, image_batches, no_readable_image
from sslight.train.distributed import own_share, sum_over_processes
from sslight.views import normalize


@dataclass(frozen=True)
class EvalTransform:
    """How an image becomes the input of a backbone.

    Attributes:
        image_size: Side of the centre crop in px.
        resize: Shorter side before the crop in px; None for 256 / 224 of ``image_size``.
        mean, std: Of the channels (of 0–1), for the normalisation on the device.
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: int | None = None


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Within, the module is in eval mode; afterwards in the mode that it had."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


@torch.no_grad()
def feature_batches(
    backbone: nn.Module,
    source: Source,
    transform: EvalTransform,
    *,
    indices: npt.NDArray[np.int64],
    batch_size: int,
    workers: int,
    device: torch.device | str,
    bad: list[BadImage],
    precision: str = "32",
    limits: ReadLimits = DEFAULT_LIMITS,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices ``[B]`` (on the CPU) and float32 features ``[B, D]`` of the images at ``indices``, in order.

    The backbone must be in eval mode. Unreadable images are left out and added to ``bad``; the last
    batch may be smaller.
    """
    kind = torch.device(device).type
    for images, _, rows in image_batches(
        source,
        size=transform.image_size,
        resize=transform.resize,
        batch_size=batch_size,
        workers=workers,
        indices=indices,
        bad=bad,
        limits=limits,
    ):
        views = normalize(images.to(device)[None], transform.mean, transform.std)
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16"):
            features = backbone(views)
        yield rows, features.float()


@torch.no_grad()
def extract_features(
    backbone: nn.Module,
    source: Source,
    *,
    image_size: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    batch_size: int = 256,
    workers: int = 0,
    device: torch.device | str = "cpu",
    limits: ReadLimits = DEFAULT_LIMITS,
    bad: list[BadImage] | None = None,
    setting: str = "data.train",
) -> tuple[Tensor, Tensor]:
    """Features in the order of the source, from the backbone in eval mode, and which images could be read.

    Under torch.distributed every process computes a contiguous part and all processes get the whole.
    The backbone's training mode is put back afterwards. Unreadable images of this process are added to ``bad``.

    Returns:
        Features ``[N, num_features]`` in float32, zero for unreadable images; a mask ``[N]``, true for readable.

    Raises:
        ValueError: no image can be read.
    """
    features = torch.zeros(len(source), num_features(backbone), device=device)
    readable = torch.zeros(len(source), device=device)
    bad = [] if bad is None else bad
    transform = EvalTransform(image_size, mean, std)
    with eval_mode(backbone):
        for indices, values in feature_batches(
            backbone,
            source,
            transform,
            indices=own_share(np.arange(len(source))),
            batch_size=batch_size,
            workers=workers,
            device=device,
            bad=bad,
            limits=limits,
        ):
            rows = indices.to(device)
            features[rows] = values
            readable[rows] = 1
    for rows_of_all in (features, readable):  # each row is non-zero in one process only
        sum_over_processes(rows_of_all)
    if not readable.any():
        raise ValueError(no_readable_image(bad, setting=setting))
    return features, readable.bool()
