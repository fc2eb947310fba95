"""A classifier in one file: backbone, last layer, class names, and how images become its input."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor, nn

from sslight.backbones import BackboneInfo, load_backbone, num_features, read_backbone_info, read_header, save_backbone
from sslight.finetuning.classifier import Classifier

CLASSIFIER_FILE = "classifier.safetensors"


@dataclass(frozen=True)
class ClassifierFile:
    """What a ``classifier.safetensors`` holds.

    Attributes:
        classifier: In eval mode; its head is one linear layer.
        info: Of the backbone and its input.
        classes: Names, in the order of the logits.
        multi_label: Whether each class is a question of its own, so that several may be right.
        resize: Shorter side before the center is cut, px; None for 256 / 224 of the image size.
    """

    classifier: Classifier
    info: BackboneInfo
    classes: tuple[str, ...]
    multi_label: bool
    resize: int | None


def head_tensors(backbone: nn.Module, layer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weight and bias of a linear layer under the names that it has in timm's network with a classifier."""
    name = backbone.pretrained_cfg["classifier"]  # type: ignore[index]
    assert isinstance(name, str | tuple)
    name = name if isinstance(name, str) else name[0]
    return {f"{name}.{key}": value for key, value in layer.items()}


def classifier_notes(classes: Sequence[str], *, multi_label: bool, resize: int | None) -> dict[str, str]:
    """What the file says of the classifier, beside what it says of the backbone."""
    facts: dict[str, Any] = {"classes": list(classes), "multi_label": multi_label, "resize": resize}
    return {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()}


def save_classifier(classifier: Classifier, path: Path, info: BackboneInfo) -> None:
    """Write a classifier whose head is one linear layer; ``info`` has the notes of :func:`classifier_notes`."""
    layer = head_tensors(classifier.backbone, classifier.head[-1].state_dict())
    save_backbone(classifier.backbone, path, **info.to_build(), classifier=layer)


def is_classifier_file(path: Path) -> bool:
    """Whether a file is of weights with a classifier, as :func:`save_classifier` and exports write them."""
    return bool(read_header(path).get("classifier"))


def open_classifier(path: Path) -> ClassifierFile:
    """Read a file for which :func:`is_classifier_file` is true. Raises ValueError if it is damaged."""
    info, names = read_backbone_info(path), read_header(path)["classifier"]
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name.rpartition(".")[2]: file.get_tensor(name) for name in names}
        classes = tuple(map(str, json.loads(info.notes["classes"])))
        multi_label, resize = (json.loads(info.notes.get(key, "null")) for key in ("multi_label", "resize"))
        resize = None if resize is None else int(resize)
        backbone = load_backbone(path)
        classifier = Classifier(backbone, len(classes))
        classifier.head[-1].load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is damaged ({reason}): fine-tune or export again.") from None
    assert classifier.head[-1].in_features == num_features(backbone)
    return ClassifierFile(classifier.eval(), info, classes, bool(multi_label), resize)
