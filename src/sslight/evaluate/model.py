"""The backbone to evaluate, from whatever names it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from sslight.backbones import (
    BackboneInfo,
    build_backbone,
    check_image_size,
    load_backbone,
    load_projection_head,
    read_backbone_info,
    read_state_dict,
    timm_name,
)

_TIMM = "timm:"


@dataclass(frozen=True)
class EvaluatedModel:
    """A backbone in eval mode and what is known of it.

    Attributes:
        backbone: ``x [B, 3, H, W]`` → ``[B, num_features]``.
        info: Its name, sizes and normalisation.
        notes: Where the weights come from, in words.
        projection: The MLP of the DINO projection head that was trained with it, as in
            :func:`~sslight.backbones.load_projection_head`; None where the file has none.
    """

    backbone: nn.Module
    info: BackboneInfo
    notes: str
    projection: Mapping[str, Tensor] | None


def load_model(checkpoint: str, *, network: str, seed: int) -> EvaluatedModel:
    """The network that ``checkpoint`` names: a file of weights, ``timm:NAME`` or ``timm:NAME@FILE``.

    Args:
        checkpoint: As the setting of that name.
        network: ``student`` or ``teacher``.
        seed: Of the weights of a new timm network.

    Raises:
        ValueError: there is no such file or network, it is damaged, or the weights are of another network.
    """
    if is_timm(checkpoint):
        name, _, file = checkpoint.removeprefix(_TIMM).partition("@")
        return _timm_model(name, file, seed)
    path = Path(checkpoint).expanduser()
    info = read_backbone_info(path)
    origin = info.notes.get("source", "pre-trained weights")
    return EvaluatedModel(
        backbone=load_backbone(path, network=network),
        info=info,
        notes=f"{origin}, the {network} network",
        projection=load_projection_head(path, network=network),
    )


def is_timm(checkpoint: str) -> bool:
    """Whether the setting names a timm model instead of a file of this program or the original."""
    return checkpoint.startswith(_TIMM)


def default_folder(checkpoint: str) -> Path:
    """Where results go if nothing else is said: beside the file, or in the current folder."""
    if is_timm(checkpoint):
        return Path("evaluation")
    path = Path(checkpoint).expanduser()
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    return folder / "evaluation"


def choose_image_size(model: EvaluatedModel, image_size: int | None) -> int:
    """The side in px at which the model is evaluated; ValueError if it cannot take it."""
    size = model.info.image_size if image_size is None else image_size
    check_image_size(model.backbone, size, "image_size")
    return size


def _timm_model(name: str, file: str, seed: int) -> EvaluatedModel:
    architecture, *tag = name.split(".")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = build_backbone(architecture).eval()
    try:
        wanted = timm.get_pretrained_cfg(".".join([timm_name(architecture), *tag]))
    except RuntimeError:
        raise ValueError(f"timm:{name} has a tag that timm does not know: write timm:{architecture}.") from None
    info = BackboneInfo(
        name=architecture, image_size=wanted.input_size[-1], patch_size=None, mean=wanted.mean, std=wanted.std
    )
    if file:
        _load_classifier_weights(backbone, file, name, wanted.classifier)
    notes = f"weights from {file}" if file else f"untrained, weights drawn with seed {seed}"
    return EvaluatedModel(backbone, info, notes, projection=None)


def _load_classifier_weights(
    backbone: nn.Module, file: str, name: str, classifier: str | tuple[str, ...] | None
) -> None:
    """Load a state dict of a whole classification network into its backbone; its classifier is left out."""
    state = read_state_dict(file)
    classifiers = (classifier,) if isinstance(classifier, str) else classifier or ()
    state = {key: value for key, value in state.items() if key.rpartition(".")[0] not in classifiers}
    expected = backbone.state_dict()
    fitting = [key for key, value in expected.items() if key in state and state[key].shape == value.shape]
    strange = [key for key in expected if key not in set(fitting)] + [key for key in state if key not in expected]
    if strange:
        raise ValueError(
            f"the weights in {file} are not those of timm:{name}: {len(fitting)} of {len(expected)} entries fit "
            f"(the first that does not: {strange[0]}); name the network that the file is of."
        )
    backbone.load_state_dict(state)
