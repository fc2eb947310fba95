"""The original implementation's names of backbone parameters, and timm's for the same."""

from collections.abc import Mapping

from torch import Tensor

from sslight.backbones.build import timm_name
from sslight.backbones.torchvision_keys import mobilenet_v2_modules, renamed_key


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
        modules = {f"encoder.{old}": new for old, new in mobilenet_v2_modules().items()}
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
        new_key = renamed_key(key, modules)
        if new_key is None:
            unknown.append(key)
        else:
            renamed[new_key] = value
    if unknown:
        raise ValueError(f"weights do not belong to backbone={name}; left over: {', '.join(unknown)}.")
    return renamed
