"""The original implementation's checkpoints (``*.pth.tar``), read without running what they contain."""

import _codecs
import collections
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslight.backbones.original import to_timm_keys

# The configuration inside is a dict of its own class; an OrderedDict stands for it. Two numbers may
# be NumPy scalars, whose parts these functions rebuild. Nothing else is let in, and none of these runs code.
_SAFE: list[Any] = [
    *((collections.OrderedDict, name) for name in ("fvcore.common.config.CfgNode", "yacs.config.CfgNode")),
    *(
        (np._core.multiarray.scalar, name)  # type: ignore[attr-defined]
        for name in ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
    ),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "float16", "int64", "int32", "bool")),
    (_codecs.encode, "_codecs.encode"),
]

_NETWORKS = {
    "DINO": {"student": "student", "teacher": "teacher"},
    "SWAV": {"network": "network"},
    "MOCO": {"query": "encoder_q", "key": "encoder_k"},
}
_METHODS = {"DINO": "DINO", "SWAV": "SwAV", "MOCO": "MoCo"}
_PREFIX = re.compile(r"(?:module\.)?(\w+)\.backbone\.(.+)")


@dataclass(frozen=True)
class OriginalCheckpoint:
    """What one of the original's checkpoints says and holds.

    ``method``: DINO, SwAV or MoCo; ``backbone``: the original's name of it; ``epoch``: finished
    epochs (None where the file does not say); ``image_size``: side in px of the global
    views (of a ViT: that for which its position embedding is made);
    ``patch_size``: in px, None for networks without patches; ``mean`` and ``std`` of the channels;
    ``networks``: state dicts of its backbones by our names, that which was trained by gradients
    first, with the original's keys.
    """

    method: str
    backbone: str
    epoch: int | None
    image_size: int
    patch_size: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    networks: Mapping[str, Mapping[str, Tensor]]

    def state(self, network: str) -> dict[str, Tensor]:
        """The weights of one network under timm's names; errors as for :func:`to_timm_keys`."""
        return to_timm_keys(self.backbone, self.networks[network])


def load_plain(path: Path, *, mapped: bool = True) -> Any:
    """What ``torch.save`` wrote to ``path``: tensors, plain data, and the original's configuration as a dict.

    Nothing in the file is executed: pickles that name any other class or function are refused. With ``mapped``
    tensors are read from the file when they are used, for which it must stay.

    Raises:
        ValueError: the file is damaged or holds more than that; the text is the reason alone.
    """
    try:
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            _refuse_compressed(path)
        with torch.serialization.safe_globals(_SAFE):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip and mapped)
    except Exception as error:  # the unpickler raises nearly every type on damaged files
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            reason = f"it would call {named[1]}, which is not run"
        elif isinstance(error, RecursionError | UnicodeError):
            reason = "it is damaged"
        elif isinstance(error, RuntimeError | ValueError) and str(error):
            reason = str(error).splitlines()[0]
        else:
            reason = "it is damaged"
        raise ValueError(reason) from None


def _refuse_compressed(path: Path) -> None:
    """Refuse members that may unfold to more than the file holds; torch.save never compresses."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("it is compressed, which torch.save never does")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError("its members claim more bytes than it has")


def parse_original(content: Any) -> OriginalCheckpoint | None:
    """A loaded file as a checkpoint of the original; None if it is none.

    Raises:
        ValueError: it is one, but its configuration lacks what is needed or does not fit its weights.
    """
    if not isinstance(content, dict) or not {"config", "state_dict"} <= content.keys():
        return None
    config, state = content["config"], content["state_dict"]
    if not isinstance(config, dict) or not isinstance(state, dict):
        return None
    try:
        method, backbone = config["SSL_METHOD"].upper(), config["MODEL"]["BACKBONE_ARCH"]
        parts = _NETWORKS[method]
        image_size = int(config["MULTI_VIEWS_TRANSFORMS"]["GLOBAL_CROP_SIZE"])
        patch_size = int(config["VIT"]["PATCH_SIZE"]) if backbone.startswith("vit") else None
        mean, std = (tuple(float(value) for value in config["DATA"][key]) for key in ("MEAN", "STD"))
        epoch = int(content["epoch"]) if "epoch" in content else None
        (_, _, _), (_, _, _) = mean, std
    except KeyError as error:
        raise ValueError(f"its configuration has no {error.args[0]} that this program knows") from None
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"its configuration is damaged: {error}") from None
    networks = _backbones(state, parts)
    if not networks:
        raise ValueError(f"it says {_METHODS[method]}, but has none of the networks {', '.join(parts.values())}")
    if patch_size is not None:
        image_size = _native_size(next(iter(networks.values())), patch_size)
    return OriginalCheckpoint(
        method=_METHODS[method],
        backbone=backbone,
        epoch=epoch,
        image_size=image_size,
        patch_size=patch_size,
        mean=mean,
        std=std,
        networks=networks,
    )


def _backbones(state: Mapping[Any, Any], parts: Mapping[str, str]) -> dict[str, dict[str, Tensor]]:
    """The state dicts of the backbones by our names, from the names ``parts`` gives them."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        if isinstance(value, Tensor) and (match := _PREFIX.fullmatch(str(key))):
            found.setdefault(match[1], {})[match[2]] = value
    return {ours: found[theirs] for ours, theirs in parts.items() if theirs in found}


def _native_size(state: Mapping[str, Tensor], patch_size: int) -> int:
    """Side in px for which a ViT's position embedding is made: the original keeps 224 px at any view size."""
    if "pos_embed" not in state or state["pos_embed"].ndim != 3:
        raise ValueError("its ViT has no position embedding")
    num_patches = state["pos_embed"].shape[1] - 1  # the other one is the class token's
    return math.isqrt(num_patches) * patch_size
