"""Features of the centre view of every image of a source."""

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sslight.backbones import num_features
from sslight.data import BadImage, Source, image_batches, no_readable_image
from sslight.views import normalise


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
) -> tuple[Tensor, Tensor]:
    """Features in the order of the source, from the backbone in eval mode, and which images could be read.

    Under torch.distributed every process computes a contiguous part and all processes get the whole.
    The backbone's training mode is put back afterwards.

    Returns:
        Features ``[N, num_features]`` in float32, zero for unreadable images; a mask ``[N]``, true for readable.

    Raises:
        ValueError: no image can be read.
    """
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    own = np.array_split(np.arange(len(source)), world_size)[rank]
    features = torch.zeros(len(source), num_features(backbone), device=device)
    readable = torch.zeros(len(source), device=device)
    bad: list[BadImage] = []
    was_training = backbone.training
    backbone.eval()
    try:
        for images, _, indices in image_batches(
            source, size=image_size, batch_size=batch_size, workers=workers, indices=own, bad=bad
        ):
            rows = indices.to(device)
            features[rows] = backbone(normalise(images.to(device)[None], mean, std)).float()
            readable[rows] = 1
    finally:
        backbone.train(was_training)
    if world_size > 1:  # each row is non-zero in one process only
        dist.all_reduce(features)
        dist.all_reduce(readable)
    if not readable.any():
        raise ValueError(no_readable_image(bad))
    return features, readable.bool()
