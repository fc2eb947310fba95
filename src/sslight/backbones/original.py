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


def parse_original(content: Any) -> tuple[dict[str, Any], dict[str, str]] | None:
    """A loaded file as a checkpoint of the original; None if it is none.

    Returns:
        The fields of its :class:`~sslight.backbones.BackboneInfo`; and our names of its backbones, that which was
        trained by gradients first, with the paths under which their weights are.

    Raises:
        ValueError: it is one, but its configuration lacks what is needed or does not fit its weights.
    """
    if not isinstance(content, dict):
        return None
    config, state, epoch = content.get("config"), content.get("state_dict"), content.get("epoch")
    if not isinstance(config, dict) or not isinstance(state, dict) or not {"SSL_METHOD", "MODEL"} & config.keys():
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
    regions: dict[str, str] = {}
    for key, value in state.items():
        if isinstance(value, Tensor) and (match := re.match(r"((?:module\.)?(\w+)\.backbone\.)", str(key))):
            regions.setdefault(match[2], f"state_dict.{match[1]}")
    regions = {ours: regions[theirs] for ours, theirs in parts.items() if theirs in regions}
    if not regions:
        raise ValueError(f"it says {_METHODS[method]}, but has none of the networks {', '.join(parts.values())}")
    if patch_size is not None:
        image_size = _native_size(state, next(iter(regions.values())), patch_size)
    notes = {"source": "checkpoint of the original implementation (saic-fi/SSLight)", "method": _METHODS[method]}
    if isinstance(epoch, int):
        notes["epoch"] = str(epoch)
    fields = {"name": name, "image_size": image_size, "patch_size": patch_size, "mean": mean, "std": std}
    return {**fields, "notes": notes}, regions


def _native_size(state: Mapping[str, Any], region: str, patch_size: int) -> int:
    """Side in px for which a ViT's position embedding is made: the original keeps 224 px at any view size."""
    embedding = state.get(f"{region.removeprefix('state_dict.')}pos_embed")
    if not isinstance(embedding, Tensor) or embedding.ndim != 3:
        raise ValueError("its ViT has no position embedding")
    return math.isqrt(embedding.shape[1] - 1) * patch_size  # one more is the class token's
