"""The names of a network's parameters in other programs: torchvision's, and layers by number."""

import re
from collections.abc import Iterator, Mapping

import timm
import torch
from torch import Tensor

from sslight.backbones.build import timm_name

TORCHVISION_NAMES = {name: name for name in ("resnet18", "resnet34", "resnet50")} | {"mobilenetv2_100": "mobilenet_v2"}
"""timm's names of the networks that are exported with torchvision's names, and torchvision's."""

# Both define these networks layer by layer in the same order; that their outputs are equal is tested.
_READ_TOO = {
    "mobilenetv3_large_100": "mobilenet_v3_large",
    "mobilenetv3_small_100": "mobilenet_v3_small",
    "mnasnet_100": "mnasnet1_0",
    **{name: name for name in ("efficientnet_b0", "efficientnet_b1", "convnext_tiny", "convnext_small", "densenet121")},
}
_TORCHVISION_EPS = {"mobilenetv3_large_100": 1e-3, "mobilenetv3_small_100": 1e-3}


def to_torchvision_keys(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries of a timm network, with or without classifier, to torchvision's names, in their order.

    Raises ValueError if torchvision has no such network (it has no ViT-Tiny).
    """
    architecture = timm_name(name)
    if architecture not in TORCHVISION_NAMES:
        raise ValueError(
            f"backbone={name} has no twin in torchvision, whose names exist for mobilenet_v2, resnet18, resnet34 and "
            f"resnet50: export it with timm's names (format=safetensors)."
        )
    theirs = {ours: theirs for theirs, ours in _torchvision(architecture).items()}
    return {theirs[key]: value for key, value in state.items()}


def other_names(architecture: str, expected: list[str]) -> Iterator[dict[str, str]]:
    """The names that the entries ``expected`` of a timm network may have in a file; timm's come first.

    The last may be layers by number, as in ``nn.Sequential(*resnet.children())``, which the original uses.
    """
    yield {key: key for key in expected}
    theirs = {}
    if architecture in TORCHVISION_NAMES or architecture in _READ_TOO:
        theirs = {key: ours for key, ours in _torchvision(architecture).items() if ours in expected}
        yield theirs
    if {"conv1.weight", "layer4.0.conv1.weight"} <= set(expected):
        yield {_resnet_number(key): key for key in expected}
    elif theirs:
        yield {key.removeprefix("features."): ours for key, ours in theirs.items()}


def as_in_timm(architecture: str, key: str, value: Tensor) -> Tensor:
    """One entry of torchvision's network as timm's has it: MobileNetV3's norms have another epsilon."""
    if architecture in _TORCHVISION_EPS and key.endswith("running_var"):
        return value + (_TORCHVISION_EPS[architecture] - 1e-5)
    return value


def _resnet_number(key: str) -> str:
    return re.sub(r"^layer(\d)", lambda m: str(int(m[1]) + 3), re.sub(r"^bn1", "1", re.sub(r"^conv1", "0", key)))


def _torchvision(architecture: str) -> dict[str, str]:
    """Torchvision's names of all entries to timm's, in order."""
    import torchvision  # half a second

    build = getattr(torchvision.models, {**TORCHVISION_NAMES, **_READ_TOO}[architecture])
    with torch.device("meta"):
        return dict(zip(build().state_dict(), timm.create_model(architecture).state_dict(), strict=True))
