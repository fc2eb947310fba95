"""The backbone to evaluate, from whatever names it."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from sslight.backbones import BackboneInfo, build_backbone, check_image_size, is_public, open_weights, timm_config
from sslight.data import Source, readable_images
from sslight.train.record.run_weights import run_folder_of

_TIMM = "timm:"


@dataclass(frozen=True)
class EvaluatedModel:
    """A backbone in eval mode and what is known of it."""

    backbone: nn.Module  # x [B, 3, H, W] → [B, num_features]
    info: BackboneInfo
    notes: str  # where the weights come from, in words
    projection: Mapping[str, Tensor] | None  # of the DINO head that was trained with it, as WeightsFile gives it
    untrained: bool = False
    pretrained_here: bool = False  # from new weights, without labels


def load_model(checkpoint: str, *, network: str, seed: int) -> EvaluatedModel:
    """The network that ``checkpoint`` names.

    A file of weights; ``timm:NAME`` for a new network (its weights are drawn with ``seed``), ``timm:NAME@FILE`` for a
    file that does not say its network; ``timm:NAME.TAG`` or ``hf-hub:OWNER/NAME`` for public weights. ``network`` is
    ``student`` or ``teacher``. ValueError if there is no such file or network, it is damaged, or of another network.
    """
    name, at, file = checkpoint.removeprefix(_TIMM).partition("@") if is_timm(checkpoint) else ("", "", "")
    if name and not at and "." not in name:
        return _new_model(name, seed)
    weights = open_weights(file, backbone=name) if at else open_weights(checkpoint)
    backbone, changes = weights.build(network)
    info = weights.described()
    origin = f"weights from {file or checkpoint}" if weights.regions is None else info.notes.get("source")
    which = [] if weights.regions is None or is_timm(checkpoint) else [f"the {network} network"]
    normalization = [f"input normalized {said}" for said in [info.notes.get("normalization")] if said]
    notes = [origin or "pre-trained weights", *which, *changes, *normalization]
    projection, here = weights.projection_head(network), weights.pretrained_here
    return EvaluatedModel(backbone, info, "; ".join(notes), projection, pretrained_here=here)


def is_timm(checkpoint: str) -> bool:
    """Whether the setting begins with the name of a timm model."""
    return checkpoint.startswith(_TIMM)


def default_folder(checkpoint: str) -> Path:
    """Where results go if nothing else is said: beside the file, or in the current folder."""
    if is_timm(checkpoint) or is_public(checkpoint):
        return Path("evaluation")
    return run_folder_of(checkpoint) / "evaluation"


def choose_image_size(model: EvaluatedModel, image_size: int | None, images: Source | None = None) -> int:
    """The side in px at which the model is evaluated; ValueError if it cannot take it.

    Without ``image_size`` it is the model's own. A new network has seen none: of small ``images`` it takes the size,
    if it can (the median of the shorter sides of 16).
    """
    size = model.info.image_size if image_size is None else image_size
    if images is not None and image_size is None and model.untrained:
        few = islice(readable_images(images, seed=0, bad=[]), 16)
        small = int(median(min(image.shape[1:]) for _, image in few))
        with suppress(ValueError):
            check_image_size(model.backbone, small, "image_size")
            return min(size, small)
    check_image_size(model.backbone, size, "image_size")
    return size


def _new_model(name: str, seed: int) -> EvaluatedModel:
    config = timm_config(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = build_backbone(name).eval()
    info = BackboneInfo(name, config["input_size"][-1], None, tuple(config["mean"]), tuple(config["std"]))
    return EvaluatedModel(backbone, info, f"untrained, weights drawn with seed {seed}", projection=None, untrained=True)
