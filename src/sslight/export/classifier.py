"""The classifier of a linear evaluation, as a part of an export."""

import json
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor, nn

from sslight.backbones import weights_fingerprint

FILE_NAME = "classifier.safetensors"


@dataclass(frozen=True)
class Classifier:
    """A linear classifier of features, their standardisation folded in."""

    classes: tuple[str, ...]  # names, in the order of the logits
    weight: Tensor  # [C, D]
    bias: Tensor  # [C]
    last_blocks: int | None  # of a ViT: of how many last blocks it takes the class tokens; None: the backbone's output
    image_size: int  # at which it was trained and measured, px
    resize: int | None


def read_classifier(folder: Path, backbone: nn.Module) -> Classifier:
    """The classifier that ``sslight evaluate linear`` left in a folder for this backbone.

    Raises ValueError if there is none, it is damaged, of another protocol, or trained on another backbone.
    """
    path = folder / FILE_NAME if folder.is_dir() else folder
    remedy = "give the folder of a `sslight evaluate linear` of this checkpoint"
    if not path.is_file():
        raise ValueError(f"classifier={folder} has no {FILE_NAME}: {remedy}.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["sslight"])
        tensors = safetensors.torch.load_file(path)
    except KeyError:
        raise ValueError(f"{path} does not say what it classifies, as those of older evaluations: {remedy}.") from None
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): {remedy}.") from None
    if not facts["protocol"].startswith("linear"):
        raise ValueError(f"{path} is of the protocol {facts['protocol']}, which changed the backbone: {remedy}.")
    if facts["weights_sha256"] != weights_fingerprint(backbone):
        raise ValueError(f"{path} was trained on the features of another backbone: {remedy}.")
    weight, bias = tensors["weight"].double(), tensors["bias"].double()
    if "mean" in tensors:  # logistic regression on standardised features
        weight = weight / tensors["std"].double()
        bias = bias - weight @ tensors["mean"].double()
    return Classifier(
        classes=tuple(facts["classes"]),
        weight=weight.float(),
        bias=bias.float(),
        last_blocks=facts["last_blocks"],
        image_size=facts["image_size"],
        resize=facts["resize"],
    )
