"""The original implementation's names of backbone parameters, and timm's for the same."""

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


def to_timm_keys(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries of one of the original's backbones to timm's names.

    Args:
        name: mobilenet_v2, resnet18, resnet34, resnet50, vit_tiny (or timm's name of one of them).
        state: State dict of the backbone alone, such as ``encoder.0.0.weight`` or ``blocks.0.norm1.bias``.

    Returns:
        The same tensors under timm's names, in the same order. Completeness and shapes are checked
        where the weights are loaded.

    Raises:
        ValueError: the original had no such backbone, or entries are not of it (they are listed).
    """
    architecture = timm_name(name)
    if architecture == "mobilenetv2_100":
        modules = _mobilenet_v2_modules()
    elif architecture in ("resnet18", "resnet34", "resnet50"):
        modules = {"encoder.0": "conv1", "encoder.1": "bn1"}
        modules |= {f"encoder.{stage + 3}": f"layer{stage}" for stage in range(1, 5)}
    elif architecture == "vit_tiny_patch16_224":
        return dict(state)
    else:
        raise ValueError(
            f"backbone={name} is not one of the original implementation: "
            f"it had mobilenet_v2, resnet18, resnet34, resnet50 and vit_tiny."
        )
    renamed, unknown = {}, []
    for key, value in state.items():
        new_key = _rename(key, modules)
        if new_key is None:
            unknown.append(key)
        else:
            renamed[new_key] = value
    if unknown:
        raise ValueError(f"weights do not belong to backbone={name}; left over: {', '.join(unknown)}.")
    return renamed


def _rename(key: str, modules: Mapping[str, str]) -> str | None:
    """The key with the longest known module prefix replaced; None if there is none."""
    for end in [match.start() for match in re.finditer(r"\.", key)][::-1]:
        if key[:end] in modules:
            return modules[key[:end]] + key[end:]
    return None


def _mobilenet_v2_modules() -> dict[str, str]:
    """Module names of torchvision's MobileNetV2 (under ``encoder``) to timm's."""
    modules = {
        "encoder.0.0": "conv_stem",
        "encoder.0.1": "bn1",
        "encoder.18.0": "conv_head",
        "encoder.18.1": "bn2",
    }
    number = 0
    for stage, repeats in enumerate(_MOBILENET_V2_REPEATS):
        for block in range(repeats):
            number += 1
            parts = _MOBILENET_FIRST_BLOCK if number == 1 else _MOBILENET_BLOCK
            for old, new in parts.items():
                modules[f"encoder.{number}.conv.{old}"] = f"blocks.{stage}.{block}.{new}"
    return modules
