"""Features of the center view of every image of a source."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sslight.backbones import eval_mode, num_features
from sslight.data import (
    DEFAULT_LIMITS,
    BadImage,
    ReadLimits,
    Source,
    check_bad_share,
    image_batches,
    no_readable_image,
    unreadable_images,
)
from sslight.train import failing_together
from sslight.train.machine.distributed import gathered, own_share, sum_over_processes
from sslight.train.record.progress import Progress
from sslight.views import normalize


@dataclass(frozen=True)
class EvalTransform:
    """How an image becomes the input of a backbone."""

    image_size: int  # side of the center crop, px
    mean: tuple[float, float, float]  # of the channels (of 0–1), for the normalization on the device
    std: tuple[float, float, float]
    resize: int | None = None  # shorter side before the crop, px; None for 256 / 224 of image_size


@dataclass(frozen=True)
class Extraction:
    """Where and how features are computed; they depend on ``precision`` (``32`` or ``bf16``) and ``limits`` alone."""

    device: torch.device | str = "cpu"
    batch_size: int = 256
    workers: int = 0
    precision: str = "32"
    limits: ReadLimits = DEFAULT_LIMITS


def check_images(source: Source, what: str, how: Extraction, max_share: float, progress: Progress) -> int:
    """Decode every image of a set before long work that needs it; how many cannot be read.

    All processes share the images. Raises ValueError if there are too many (``max_share``), or all, of ``what``.
    """
    with failing_together(), progress:
        share = own_share(np.arange(len(source)))
        progress.stage(f"reading {what}", len(share), unit="image")
        own = unreadable_images(source, share, workers=how.workers, limits=how.limits, progress=progress.advance)
    bad = [image for part in gathered(own) for image in part]
    with failing_together():
        check_bad_share(len(bad), len(source), what, max_share, bad)
    return len(bad)


def left_out(source: Source, rows: npt.NDArray[np.int64], how: Extraction) -> list[BadImage]:
    """The images that are not at ``rows [M]``, each with the reason why it cannot be read."""
    missing = np.setdiff1d(np.arange(len(source)), rows)
    return unreadable_images(source, missing, workers=how.workers, limits=how.limits) if len(missing) else []


@torch.no_grad()
def features_of(backbone: nn.Module, images: Tensor, transform: EvalTransform, how: Extraction) -> Tensor:
    """Bytes ``[B, 3, S, S]`` → float32 features ``[B, D]``, on the device of the backbone."""
    views = normalize(images.to(how.device, non_blocking=True)[None], transform.mean, transform.std)
    with torch.autocast(torch.device(how.device).type, dtype=torch.bfloat16, enabled=how.precision == "bf16"):
        features: Tensor = backbone(views)
    return features.float()


def feature_batches(
    backbone: nn.Module, source: Source, transform: EvalTransform, how: Extraction, *, bad: list[BadImage]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices ``[B]`` (on the CPU) and float32 features ``[B, D]`` of this process's share of the images, in order.

    The backbone must be in eval mode. Unreadable images are left out and added to ``bad``; the last
    batch may be smaller.
    """
    for images, _, rows in image_batches(
        source,
        size=transform.image_size,
        resize=transform.resize,
        batch_size=how.batch_size,
        workers=how.workers,
        indices=own_share(np.arange(len(source))),
        bad=bad,
        limits=how.limits,
    ):
        yield rows, features_of(backbone, images, transform, how)


def extract_features(
    backbone: nn.Module,
    source: Source,
    transform: EvalTransform,
    how: Extraction,
    *,
    progress: Callable[[int], None] = lambda images: None,
) -> tuple[Tensor, Tensor]:
    """Float32 features ``[N, D]`` in the order of the source, zero for unreadable images, and a mask of readable ones.

    All processes get the whole. ``progress`` is called with the number of each batch's images in this process. The
    backbone's training mode is put back afterwards. ValueError if none is readable.
    """
    features = torch.zeros(len(source), num_features(backbone), device=how.device)
    readable = torch.zeros(len(source), device=how.device)
    bad: list[BadImage] = []
    with eval_mode(backbone):
        for indices, values in feature_batches(backbone, source, transform, how, bad=bad):
            rows = indices.to(how.device)
            features[rows] = values
            readable[rows] = 1
            progress(len(rows))
    for rows_of_all in (features, readable):  # each row is non-zero in one process only
        sum_over_processes(rows_of_all)
    if not readable.any():
        raise ValueError(no_readable_image(bad))
    return features, readable.bool()
