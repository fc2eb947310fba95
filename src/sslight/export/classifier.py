"""The classifier of an evaluation or of fine-tuning, as part of an export."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from sslight.backbones import read_header, weights_fingerprint
from sslight.finetuning.classifier import hidden_layers
from sslight.finetuning.classifier_file import CLASSIFIER_FILE as FILE_NAME
from sslight.finetuning.classifier_file import ClassifierFile, is_classifier_file, open_classifier


@dataclass(frozen=True)
class Classifier:
    """A linear classifier of features, with their standardization folded in."""

    classes: tuple[str, ...]  # names, in the order of the logits
    weight: Tensor  # [C, D]
    bias: Tensor  # [C]
    last_blocks: int | None  # of a ViT: of how many last blocks it takes the class tokens; None: the backbone's output
    image_size: int  # at which it was trained and measured, px
    resize: int | None
    raw: Mapping[str, Tensor]  # as it was trained: weight, bias, and mean and std of the features if they were used
    multi_label: bool = False
    hidden: nn.Sequential | None = None  # layers of a projection head between features and classifier

    def unfolded(self, features: Tensor) -> Tensor:
        """Logits ``[B, C]`` of features ``[B, D]``, as trained, with nothing folded."""
        features = features if self.hidden is None else self.hidden(features)
        if "mean" in self.raw:
            features = (features - self.raw["mean"]) / self.raw["std"]
        return features @ self.raw["weight"].T + self.raw["bias"]


def read_classifier(folder: Path, backbone: nn.Module) -> Classifier:
    """The classifier that an evaluation (linear or semi) or fine-tuning left in a folder for this backbone.

    Raises ValueError if there is none, it is damaged, of another protocol, or trained on another backbone.
    """
    path = folder / FILE_NAME if folder.is_dir() else folder
    remedy = "give the folder of a `sslight evaluate linear` of this checkpoint"
    if is_classifier_file(path):
        return _fine_tuned(open_classifier(path))
    if not path.is_file():
        raise ValueError(f"classifier={folder} has no {FILE_NAME}: {remedy}.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["sslight"])
        tensors = safetensors.torch.load_file(path)
    except KeyError:
        raise ValueError(f"{path} does not name its classes, because an older version wrote it: {remedy}.") from None
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): {remedy}.") from None
    if facts["protocol"] == "semi":
        return _semi(facts, tensors)
    if not facts["protocol"].startswith("linear"):
        raise ValueError(f"{path} is of the protocol {facts['protocol']}, which changed the backbone: {remedy}.")
    if facts["weights_sha256"] != weights_fingerprint(backbone):
        raise ValueError(f"{path} was trained on the features of another backbone: {remedy}.")
    weight, bias = tensors["weight"].double(), tensors["bias"].double()
    if "mean" in tensors:  # logistic regression on standardized features
        weight = weight / tensors["std"].double()
        bias = bias - weight @ tensors["mean"].double()
    return Classifier(
        classes=tuple(facts["classes"]),
        weight=weight.float(),
        bias=bias.float(),
        last_blocks=facts["last_blocks"],
        image_size=facts["image_size"],
        resize=facts["resize"],
        raw={name: value.float() for name, value in tensors.items()},
    )


def fine_tuned_backbone(folder: Path) -> Path | None:
    """The backbone that ``sslight evaluate semi`` trained and wrote beside its classifier; None in other folders."""
    semi = read_header(folder / FILE_NAME).get("protocol") == "semi"
    return folder / "backbone.safetensors" if semi else None


def _semi(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Classifier:
    """A linear layer, after layers of the projection head if they were kept."""
    last = max(int(name.partition(".")[0]) for name in tensors)
    raw = {name: tensors[f"{last}.{name}"] for name in ("weight", "bias")}
    layers, _ = hidden_layers(tensors)
    return Classifier(
        classes=tuple(facts["classes"]),
        weight=raw["weight"],
        bias=raw["bias"],
        last_blocks=None,
        image_size=facts["image_size"],
        resize=facts["resize"],
        raw=raw,
        hidden=nn.Sequential(*layers).eval().requires_grad_(False) if layers else None,
    )


def _fine_tuned(file: ClassifierFile) -> Classifier:
    layer = {name: value.detach() for name, value in file.classifier.head[-1].state_dict().items()}
    return Classifier(
        file.classes,
        layer["weight"],
        layer["bias"],
        last_blocks=None,
        image_size=file.info.image_size,
        resize=file.resize,
        raw=layer,
        multi_label=file.multi_label,
    )
