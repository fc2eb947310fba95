"""The original's backbones as ours: weights and images of the recorded runs."""

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor, nn

from sslight.backbones import build_backbone, load_strictly, timm_name
from sslight.backbones.key_names import other_names
from tests.golden import read_arrays

_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@cache
def _spellings(name: str) -> list[dict[str, str]]:
    return [*other_names(timm_name(name), list(build_backbone(name).state_dict()))]


def to_timm_keys(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename entries of a backbone of the original, such as ``encoder.0.0.weight``, to timm's names."""
    spellings = _spellings(name)
    if len(spellings) == 1:  # ViTs
        return dict(state)
    return {spellings[-1][key.removeprefix("encoder.")]: value for key, value in state.items()}


def recorded_backbone(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A backbone with the recorded weights, in training mode."""
    weights = read_arrays(f"backbones/{name}_weights.npz")
    state = {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}
    backbone = build_backbone(name)
    load_strictly(backbone, to_timm_keys(name, state), "the recorded weights")
    return backbone.to(dtype)


def as_input(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normalise uint8 images as the recordings did: in float32, then cast."""
    return ((images.float() / 255 - _MEAN) / _STD).to(dtype)
