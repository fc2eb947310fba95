"""Features of any images from any backbone, as arrays with names."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sslight.data import BadImage, available_cores, build_image_source
from sslight.evaluate.features.extract import EvalTransform, Extraction, extract_features
from sslight.evaluate.model import choose_image_size, load_model
from sslight.train import weights_in


@dataclass(frozen=True)
class Embeddings:
    """Features of images, row by row."""

    features: Tensor  # [N, D] float32, on the CPU (.numpy() gives an array without a copy)
    names: tuple[str, ...]  # [N] paths relative to the folder that was given, or image files' paths as given
    unreadable: tuple[BadImage, ...]  # the images that are left out, with the reason for each


def embed(
    images: str | Path | Sequence[str | Path],
    checkpoint: str | Path,
    *,
    network: str = "student",
    image_size: int | None = None,
    batch_size: int = 256,
    workers: int | None = None,
    device: torch.device | str | None = None,
) -> Embeddings:
    """Features of images, as the kNN protocol sees them: centre view, normalised as in pre-training.

    ``embed("images", "runs/first/backbone.safetensors").features``

    Args:
        images: A folder, an H5 file, tar shards, ``synthetic:N``, an image file, or a list of such paths (image
            files, or sets of images). No labels are read.
        checkpoint: A run folder, an export, a checkpoint of this program or of the original, or ``timm:NAME[@FILE]``.
        network: Which network of a checkpoint: ``student`` or ``teacher``.
        image_size: Side in px of the centre view; None takes that of the global views in pre-training.
        batch_size: Images that pass through the network at once; without influence on the result beyond rounding.
        workers: Processes that decode; None takes none on a CPU, else the cores of this machine.
        device: Where to compute; None takes a GPU if there is one.

    Raises:
        ValueError: a path or the checkpoint is wrong, no image can be read, or features are not finite.
    """
    paths = [images] if isinstance(images, str | Path) else images
    source = build_image_source([os.fspath(path) for path in paths], setting="images")
    weights = weights_in(os.fspath(checkpoint), whole=network == "teacher")
    model = load_model(weights, network=network, seed=0)
    size = choose_image_size(model, image_size)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    bad: list[BadImage] = []
    workers = (0 if place.type == "cpu" else available_cores()) if workers is None else workers
    transform, how = EvalTransform(size, model.info.mean, model.info.std), Extraction(place, batch_size, workers)
    features, readable = extract_features(model.backbone.to(place), source, transform, how, bad=bad, setting="images")
    names = (source.name(index) for index in readable.nonzero()[:, 0].tolist())
    result = Embeddings(features[readable].cpu(), tuple(names), tuple(bad))
    finite = result.features.isfinite().all(dim=1)
    if not finite.all():
        first = result.names[int(finite.logical_not().nonzero()[0, 0])]
        raise ValueError(f"{checkpoint} gives features that are not finite numbers (first for {first}): try another.")
    return result
