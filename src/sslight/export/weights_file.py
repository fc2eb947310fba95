"""Files of weights for timm and torchvision, read back as those libraries do."""

import json
from pathlib import Path
from typing import Literal

import safetensors.torch
import timm
import torchvision
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sslight.backbones import TORCHVISION_NAMES, save_backbone, timm_name
from sslight.export.network import Exportable

Keys = Literal["timm", "torchvision"]
WEIGHT_KEYS: dict[str, Keys] = {"safetensors": "timm", "torchvision": "torchvision"}
"""Formats that are files of weights, and whose names for them."""


def check_weights(exportable: Exportable, keys: Keys) -> None:
    """Refuse (ValueError) what such a file cannot hold, before any work."""
    name, classifier = exportable.info.name, exportable.classifier
    if keys == "torchvision" and timm_name(name) not in TORCHVISION_NAMES:
        raise ValueError(
            f"format=torchvision, but torchvision has no twin of backbone={name}: leave it out (it has "
            f"{', '.join(TORCHVISION_NAMES.values())})."
        )
    if classifier is not None and classifier.last_blocks not in (None, 1):
        raise ValueError(
            f"the classifier takes the class tokens of the last {classifier.last_blocks} blocks, which timm's own "
            f"classifier does not: evaluate with linear.last_blocks=1, or export format=onnx or executorch."
        )


def write_weights(exportable: Exportable, path: Path, *, keys: Keys) -> None:
    """Write weights, and the classifier's under the names that it has in that library."""
    info, classifier = exportable.info, exportable.classifier
    layer: dict[str, Tensor] = {}
    if classifier is not None:
        name = exportable.backbone.pretrained_cfg["classifier"]  # type: ignore[index]
        layer = {f"{name}.weight": classifier.weight, f"{name}.bias": classifier.bias}
    save_backbone(
        exportable.backbone,
        path,
        name=info.name,
        image_size=info.image_size,
        patch_size=info.patch_size,
        mean=info.mean,
        std=info.std,
        notes=info.notes if classifier is None else {**info.notes, "classes": json.dumps(classifier.classes)},
        classifier=layer,
        keys=keys,
    )


def open_weights(exportable: Exportable, path: Path, *, keys: Keys) -> nn.Module:
    """The exported network, from the file through timm or torchvision; a wrong file fails there."""
    classifier = exportable.classifier
    num_classes = 0 if classifier is None else len(classifier.classes)
    if keys == "timm":
        name, more = timm_name(exportable.info.name), _vit_arguments(exportable)
        whole = timm.create_model(name, num_classes=num_classes, checkpoint_path=str(path), **more).eval()
    else:
        whole = _from_torchvision(exportable, path, num_classes)
    if classifier is None:
        return exportable.around(whole)
    layer = whole.get_classifier() if keys == "timm" else _torchvision_classifier(whole)
    loaded = exportable.around(_without_classifier(whole, keys))
    assert isinstance(layer, nn.Linear)
    loaded.classifier = layer.eval().requires_grad_(False)
    return loaded


def how_to_load(exportable: Exportable, file: str, *, keys: Keys) -> str:
    """A line of Python that loads the file."""
    num_classes = 0 if exportable.classifier is None else len(exportable.classifier.classes)
    if keys == "timm":
        arguments = "".join(f", {name}={value}" for name, value in _vit_arguments(exportable).items())
        return (
            f'timm.create_model("{timm_name(exportable.info.name)}", num_classes={num_classes}{arguments}, '
            f'checkpoint_path="{file}")'
        )
    name = TORCHVISION_NAMES[timm_name(exportable.info.name)]
    last = "classifier" if name == "mobilenet_v2" else "fc"
    model = f"{name}(num_classes={num_classes})" if num_classes else f"{name}(); model.{last} = torch.nn.Identity()"
    return f'model = torchvision.models.{model}; model.load_state_dict(safetensors.torch.load_file("{file}"))'


def _vit_arguments(exportable: Exportable) -> dict[str, int]:
    backbone = exportable.backbone
    if not isinstance(backbone, VisionTransformer):
        return {}
    return {"img_size": exportable.info.image_size, "patch_size": backbone.patch_embed.patch_size[0]}


def _from_torchvision(exportable: Exportable, path: Path, num_classes: int) -> nn.Module:
    build = getattr(torchvision.models, TORCHVISION_NAMES[timm_name(exportable.info.name)])
    model: nn.Module = build(num_classes=num_classes or 1)
    if not num_classes:
        _without_classifier(model, "torchvision")
    model.load_state_dict(safetensors.torch.load_file(path))
    return model.eval()


def _torchvision_classifier(model: nn.Module) -> nn.Module:
    return model.fc if isinstance(model, torchvision.models.ResNet) else model.classifier[1]  # type: ignore[index, return-value]


def _without_classifier(model: nn.Module, keys: Keys) -> nn.Module:
    if keys == "timm":
        model.reset_classifier(0)  # type: ignore[operator]
    elif isinstance(model, torchvision.models.ResNet):
        model.fc = nn.Identity()
    else:
        model.classifier = nn.Identity()
    return model
