"""torchvision's names of backbone parameters, and timm's for the same."""

import re
from collections.abc import Mapping

from torch import Tensor

from sslight.backbones.build import timm_name

_MOBILENET_V2_REPEATS = (1, 2, 3, 4, 3, 3, 1)  # blocks of each stage; Sandler et al., CVPR 2018, table 2

_MOBILENET_FIRST_BLOCK = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
_MOBILENET_BLOCK = {
    "0.0": "conv_pw",
    "0.1": "bn1",
    "1.0": "conv_dw",
    "1.1": "bn2",
    "2": "conv_pwl",
    "3": "bn3",
}

TORCHVISION_NAMES = {
    "mobilenetv2_100": "mobilenet_v2",
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
}
"""timm's names of the networks that torchvision has too, and torchvision's."""


def to_torchvision_keys(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries of a timm network, with or without its classifier, to torchvision's names.

    Args:
        name: As for :func:`~sslight.backbones.build_backbone`.
        state: Its state dict.

    Returns:
        The same tensors in the same order. timm took the ResNets' names from torchvision, so they stay.

    Raises:
        ValueError: torchvision has no such network (it has none of ViT-Tiny).
    """
    modules = {new: old for old, new in _modules(name).items()}
    return {renamed_key(key, modules) or key: value for key, value in state.items()}


def from_torchvision_keys(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of :func:`to_torchvision_keys`; unknown entries keep their names."""
    modules = _modules(name)
    return {renamed_key(key, modules) or key: value for key, value in state.items()}


def _modules(name: str) -> dict[str, str]:
    """Torchvision's names of modules to timm's, where they differ."""
    match timm_name(name):
        case "mobilenetv2_100":
            blocks = {f"features.{old}": new for old, new in mobilenet_v2_modules().items()}
            return {**blocks, "classifier.1": "classifier"}
        case "resnet18" | "resnet34" | "resnet50":
            return {}
    raise ValueError(
        f"backbone={name} has no twin in torchvision, whose names exist for mobilenet_v2, resnet18, resnet34 and "
        f"resnet50: export it with timm's names (format=safetensors)."
    )


def renamed_key(key: str, modules: Mapping[str, str]) -> str | None:
    """The key with the longest known module prefix replaced; None if there is none."""
    for end in [match.start() for match in re.finditer(r"\.", key)][::-1]:
        if key[:end] in modules:
            return modules[key[:end]] + key[end:]
    return None


def mobilenet_v2_modules() -> dict[str, str]:
    """Module names within the ``features`` of torchvision's MobileNetV2 to timm's."""
    modules = {"0.0": "conv_stem", "0.1": "bn1", "18.0": "conv_head", "18.1": "bn2"}
    number = 0
    for stage, repeats in enumerate(_MOBILENET_V2_REPEATS):
        for block in range(repeats):
            number += 1
            parts = _MOBILENET_FIRST_BLOCK if number == 1 else _MOBILENET_BLOCK
            for old, new in parts.items():
                modules[f"{number}.conv.{old}"] = f"blocks.{stage}.{block}.{new}"
    return modules
