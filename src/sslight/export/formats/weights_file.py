"""Weights files for timm and torchvision, read back as those libraries do."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import safetensors.torch
import timm
import torchvision
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sslight.backbones import TORCHVISION_NAMES, save_backbone, timm_name
from sslight.config.schema.export_settings import ExportForm
from sslight.export.network import Exportable
from sslight.finetuning.classifier_file import classifier_notes, head_tensors

Keys = Literal["timm", "torchvision"]
WEIGHT_KEYS: dict[str, Keys] = {"safetensors": "timm", "timm": "timm", "torchvision": "torchvision"}
"""Formats that hold weights, and whose names for them."""

_FORMS = [form for form in get_args(ExportForm) if form not in WEIGHT_KEYS]
_OTHERS = f"{', '.join(_FORMS[:-1])} or {_FORMS[-1]}"  # they hold any classifier
_LAST = {name: "classifier" if name == "mobilenet_v2" else "fc" for name in TORCHVISION_NAMES.values()}


def check_weights(exportable: Exportable, keys: Keys) -> None:
    """Raise ValueError, before any work, for what such a file cannot hold."""
    name, classifier = exportable.info.name, exportable.classifier
    if keys == "torchvision" and timm_name(name) not in TORCHVISION_NAMES:
        known = ", ".join(TORCHVISION_NAMES.values())
        raise ValueError(f"torchvision does not have backbone={name}, only {known}: leave format=torchvision out.")
    if classifier is not None and classifier.hidden is not None:
        raise ValueError(
            "the classifier has layers of the projection head, which timm's network does not have: evaluate with "
            f"semi.head=linear, or export format={_OTHERS}."
        )
    if classifier is not None and classifier.last_blocks not in (None, 1):
        raise ValueError(
            f"the classifier takes the class tokens of the last {classifier.last_blocks} blocks, which timm does "
            f"not have: evaluate with linear.last_blocks=1, or export format={_OTHERS}."
        )


def write_weights(exportable: Exportable, path: Path, *, keys: Keys, resize: int | None) -> None:
    """Write weights, and the classifier under its names in that library.

    ``resize`` is the shorter side before the center is cut, px; None for the usual one.
    """
    info, classifier = exportable.info, exportable.classifier
    layer: dict[str, Tensor] = {}
    if classifier is not None:
        layer = head_tensors(exportable.backbone, {"weight": classifier.weight, "bias": classifier.bias})
        notes = classifier_notes(classifier.classes, multi_label=classifier.multi_label, resize=resize)
        info = replace(info, notes={**info.notes, **notes})
    save_backbone(exportable.backbone, path, **info.to_build(), classifier=layer, keys=keys)


def open_weights(exportable: Exportable, path: Path, *, keys: Keys) -> nn.Module:
    """The exported network, from the file through timm or torchvision; a wrong file fails there."""
    name, num_classes = timm_name(exportable.info.name), num_classes_of(exportable)
    if keys == "timm":
        more = vit_arguments(exportable)
        whole = timm.create_model(name, num_classes=num_classes, checkpoint_path=str(path), **more)
        return without_classifier(exportable, whole)
    name = TORCHVISION_NAMES[name]
    whole = getattr(torchvision.models, name)(num_classes=num_classes or 1)
    if not num_classes:
        setattr(whole, _LAST[name], nn.Identity())
    whole.load_state_dict(safetensors.torch.load_file(path))
    last = getattr(whole, _LAST[name])
    setattr(whole, _LAST[name], nn.Identity())
    return _around(exportable, whole, last[-1] if isinstance(last, nn.Sequential) else last)


def without_classifier(exportable: Exportable, whole: nn.Module) -> nn.Module:
    """The exported network of timm's, whose classifier (if there is one) comes behind the features."""
    assert callable(whole.get_classifier)
    assert callable(whole.reset_classifier)
    layer = whole.get_classifier()
    if num_classes_of(exportable):
        whole.reset_classifier(0)
    return _around(exportable, whole, layer)


def _around(exportable: Exportable, backbone: nn.Module, layer: nn.Module) -> nn.Module:
    loaded = exportable.around(backbone)
    if num_classes_of(exportable):
        loaded.classifier = layer.eval().requires_grad_(False)
    return loaded


def how_to_load(exportable: Exportable, file: str, *, keys: Keys) -> str:
    """A line of Python that loads the file."""
    num_classes = num_classes_of(exportable)
    if keys == "timm":
        arguments = "".join(f", {name}={value}" for name, value in vit_arguments(exportable).items())
        return (
            f'timm.create_model("{timm_name(exportable.info.name)}", num_classes={num_classes}{arguments}, '
            f'checkpoint_path="{file}")'
        )
    name = TORCHVISION_NAMES[timm_name(exportable.info.name)]
    without = f"{name}(); model.{_LAST[name]} = torch.nn.Identity()"
    model = f"{name}(num_classes={num_classes})" if num_classes else without
    return f'model = torchvision.models.{model}; model.load_state_dict(safetensors.torch.load_file("{file}"))'


def vit_arguments(exportable: Exportable) -> dict[str, int]:
    """What timm needs to build this ViT."""
    backbone = exportable.backbone
    if not isinstance(backbone, VisionTransformer):
        return {}
    return {"img_size": exportable.info.image_size, "patch_size": backbone.patch_embed.patch_size[0]}


def num_classes_of(exportable: Exportable) -> int:
    """Number of classes; 0 without a classifier, as for timm."""
    return 0 if exportable.classifier is None else len(exportable.classifier.classes)
