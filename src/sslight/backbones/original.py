"""What a checkpoint of the original implementation (``*.pth.tar``) says of itself."""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

_NETWORKS = {
    "DINO": {"student": "student", "teacher": "teacher"},
    "SWAV": {"network": "network"},
    "MOCO": {"query": "encoder_q", "key": "encoder_k"},
}
_METHODS = {"DINO": "DINO", "SWAV": "SwAV", "MOCO": "MoCo"}


def parse_original(content: Any, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, str]] | None:
    """A loaded file, and its tensors by dotted path, as a checkpoint of the original; None if it is none.

    Returns:
        The fields of its :class:`~sslight.backbones.BackboneInfo`; and our names of its backbones, that which was
        trained by gradients first, with the paths under which their weights are.

    Raises:
        ValueError: it is one, but its configuration lacks what is needed or does not fit its weights.
    """
    if not isinstance(content, dict):
        return None
    config, epoch = content.get("config"), content.get("epoch")
    is_state = isinstance(content.get("state_dict"), dict)
    if not isinstance(config, dict) or not is_state or not {"SSL_METHOD", "MODEL"} & config.keys():
        return None
    try:
        method, name = config["SSL_METHOD"].upper(), config["MODEL"]["BACKBONE_ARCH"]
        parts = _NETWORKS[method]
        image_size = int(config["MULTI_VIEWS_TRANSFORMS"]["GLOBAL_CROP_SIZE"])
        patch_size = int(config["VIT"]["PATCH_SIZE"]) if name.startswith("vit") else None
        mean, std = (tuple(float(value) for value in config["DATA"][key]) for key in ("MEAN", "STD"))
    except KeyError as error:
        raise ValueError(f"its configuration has no {error.args[0]} that this program knows") from None
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"its configuration is damaged: {error}") from None
    path = re.compile(r"(state_dict\.(?:module\.)?(\w+)\.backbone\.)")
    regions = {match[2]: match[1] for key in tensors if (match := path.match(key))}
    regions = {ours: regions[theirs] for ours, theirs in parts.items() if theirs in regions}
    if not regions:
        raise ValueError(f"it says {_METHODS[method]}, but has none of the networks {', '.join(parts.values())}")
    if patch_size is not None:
        image_size = _native_size(tensors, next(iter(regions.values())), patch_size)
    notes = {"source": "checkpoint of the original implementation (saic-fi/SSLight)", "method": _METHODS[method]}
    if isinstance(epoch, int):
        notes["epoch"] = str(epoch)
    fields = {"name": name, "image_size": image_size, "patch_size": patch_size, "mean": mean, "std": std}
    return {**fields, "notes": notes}, regions


def _native_size(tensors: Mapping[str, Tensor], region: str, patch_size: int) -> int:
    """Side in px for which a ViT's position embedding is made: the original keeps 224 px at any view size."""
    embedding = tensors.get(f"{region}pos_embed")
    if embedding is None or embedding.ndim != 3:
        raise ValueError("its ViT has no position embedding")
    return math.isqrt(embedding.shape[1] - 1) * patch_size  # one more is the class token's
