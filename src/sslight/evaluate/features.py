"""Features of the centre view of every image of a source."""

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sslight.data import Source, image_batches
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
) -> Tensor:
    """Features ``[N, num_features]`` in float32, in the order of the source, from the backbone in eval mode.

    Under torch.distributed every process computes a contiguous part and all processes get the whole.
    The backbone's training mode is put back afterwards.

    Raises:
        ValueError: an image cannot be read; the sentence names it.
    """
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    own = np.array_split(np.arange(len(source)), world_size)[rank]
    was_training = backbone.training
    backbone.eval()
    try:
        features = torch.cat(
            [
                backbone(normalise(images.to(device)[None], mean, std)).float()
                for images, _, _ in image_batches(
                    source, size=image_size, batch_size=batch_size, workers=workers, indices=own
                )
            ]
        )
    finally:
        backbone.train(was_training)
    if world_size == 1:
        return features
    whole = features.new_zeros(len(source), features.shape[1])
    whole[torch.from_numpy(own).to(device)] = features
    dist.all_reduce(whole)  # each row is non-zero in one process only
    return whole
