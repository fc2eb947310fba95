"""Backbone weights in files: the export, and reading it and checkpoints back, safely."""

import json
import math
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
from torch import Tensor, nn

from sslight.backbones.build import build_backbone, num_features
from sslight.backbones.original_checkpoint import OriginalCheckpoint, load_plain, parse_original
from sslight.backbones.torchvision_keys import from_torchvision_keys, to_torchvision_keys
from sslight.files import whole_file

# One entry, since safetensors writes several in random order: equal exports are equal bytes.
_METADATA_KEY = "sslight"
CHECKPOINT_FORMAT = "sslight-checkpoint"
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9"  # how torch.save began its files before PyTorch 1.6
_LARGEST_SIDE, _MOST_PATCHES = 4096, 2**16
_REMEDY = (
    "give a backbone.safetensors or a checkpoints/last.pt that sslight wrote, or a .pth.tar of the original "
    "implementation"
)
# What is learnt by gradients, and what follows it as a mean, whatever the method calls them.
_SAME_PART = {"student": ("student", "network", "query"), "teacher": ("teacher", "key")}


@dataclass(frozen=True)
class BackboneInfo:
    """What is needed to build a backbone again and to feed it.

    ``name``, ``image_size`` (px) and ``patch_size`` (px or None) as in
    :func:`~sslight.backbones.build_backbone`; ``mean`` and ``std`` of the channels (of 0–1) by which
    its input is normalised; ``num_features`` (None where the file does not say); ``notes``: free text.
    """

    name: str
    image_size: int
    patch_size: int | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    num_features: int | None = None
    notes: Mapping[str, str] = field(default_factory=dict)


def save_backbone(
    backbone: nn.Module,
    path: str | Path,
    *,
    name: str,
    image_size: int,
    patch_size: int | None,
    mean: Iterable[float],
    std: Iterable[float],
    notes: Mapping[str, str] | None = None,
    classifier: Mapping[str, Tensor] | None = None,
    keys: Literal["timm", "torchvision"] = "timm",
) -> None:
    """Write a backbone as safetensors with all that is needed to rebuild it, whole or not at all.

    Args:
        backbone: From :func:`~sslight.backbones.build_backbone`; its parameters and buffers are written.
        path: The file, replaced if it exists.
        name: As given to ``build_backbone``.
        image_size: Side in px of the global views.
        patch_size: As given to ``build_backbone``.
        mean: Of the three channels, of 0–1.
        std: The same.
        notes: Free text to keep in the file, such as the recipe.
        classifier: Weights to write beside it, by the names that timm's network with a classifier gives them;
            :func:`load_backbone` leaves them out.
        keys: Whose names of the parameters the file gets.

    Raises:
        ValueError: torchvision has no such network.
    """
    info = {
        "name": name,
        "image_size": image_size,
        "patch_size": patch_size,
        "mean": list(mean),
        "std": list(std),
        "num_features": num_features(backbone),
        "notes": dict(notes or {}),
        **({"keys": keys} if keys != "timm" else {}),
        **({"classifier": sorted(classifier)} if classifier else {}),
    }
    # The host waits for the device here.
    tensors = {
        key: value.detach().cpu().contiguous() for key, value in {**backbone.state_dict(), **(classifier or {})}.items()
    }
    if keys == "torchvision":
        tensors = to_torchvision_keys(name, tensors)
    content = safetensors.torch.save(tensors, metadata={_METADATA_KEY: json.dumps(info)})
    with whole_file(Path(path), "wb") as file:
        file.write(content)


def load_backbone(path: str | Path, *, network: str = "student") -> nn.Module:
    """A pre-trained backbone as a timm module in eval mode: ``x [B, 3, H, W]`` → ``[B, num_features]``.

    The input is RGB of 0–1, normalised by ``mean`` and ``std`` of :func:`read_backbone_info`. Nothing in
    the file is executed.

    Args:
        path: A ``backbone.safetensors``, a run's checkpoint, or a ``.pth.tar`` of the original implementation.
        network: Which network of a checkpoint: ``student``, the one that was trained (in SwAV the only one, in
            MoCo the query network), or ``teacher`` (in MoCo the key network). An export holds one only.

    Raises:
        ValueError: the file is missing, damaged, or not of these kinds, or has no such network.
    """
    info, state = _read(Path(path), network)
    backbone = build_backbone(info.name, image_size=info.image_size, patch_size=info.patch_size)
    load_strictly(backbone, state, str(path))
    return backbone.eval()


def load_backbone_weights(backbone: nn.Module, path: str | Path, *, network: str = "student") -> None:
    """Put the weights of a file into a backbone, matched by name and shape.

    Args:
        backbone: From :func:`~sslight.backbones.build_backbone`, changed in place.
        path: As for :func:`load_backbone`.
        network: As for :func:`load_backbone`.

    Raises:
        ValueError: as for :func:`load_backbone`, or weights are missing, left over or of another shape
            (they are listed; ``backbone`` is unchanged).
    """
    load_strictly(backbone, _read(Path(path), network)[1], str(path))


def read_backbone_info(path: str | Path) -> BackboneInfo:
    """Name, sizes and normalisation of the backbone in a file; errors as for :func:`load_backbone`."""
    return _read(Path(path), None)[0]


def load_projection_head(path: str | Path, *, network: str = "student") -> dict[str, Tensor] | None:
    """The MLP of the DINO projection head that was trained with a backbone; None where the file has none.

    Args:
        path: As for :func:`load_backbone`; an export has no head, and those of SwAV and MoCo are not read.
        network: ``student`` or ``teacher``.

    Returns:
        State dict of layers by position, such as ``0.weight`` (linear) and ``1.running_mean`` (batch norm).

    Raises:
        ValueError: the file is missing or damaged.
    """
    path = Path(path)
    if _kind(path) != "checkpoint":
        return None
    content = _load_checkpoint(path)
    state = content.get("model", content.get("state_dict")) if isinstance(content, dict) else None
    pattern = re.compile(rf"(?:method\.|module\.)?{network}\.head\.mlp\.(.+)")
    found = {match[1]: value for key, value in (state or {}).items() if (match := pattern.fullmatch(str(key)))}
    return found or None


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of any ``.safetensors`` or ``torch.save`` file of weights, by name; nothing in it is executed.

    A dictionary of weights under ``state_dict`` or ``model`` is unpacked, and the prefix ``module.``, which
    distributed training adds, removed.

    Raises:
        ValueError: the file is missing, damaged or holds no weights.
    """
    path = Path(path).expanduser()
    if _kind(path) == "export":
        return _read_tensors(path)
    content = _load_checkpoint(path)
    for name in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    state = {}
    if isinstance(content, dict):
        state = {str(key).removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise ValueError(f"{path} holds no weights: give a .safetensors or .pth file of a state dict.")
    return state


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict that must match the module entry by entry, in name and shape.

    Raises:
        ValueError: something is missing, left over or of another shape; all of it is listed.
    """
    expected = module.state_dict()
    problems = {
        "missing": [key for key in expected if key not in state],
        "left over": [key for key in state if key not in expected],
        "of another shape": [
            f"{key} {list(state[key].shape)} instead of {list(value.shape)}"
            for key, value in expected.items()
            if key in state and state[key].shape != value.shape
        ],
    }
    if any(problems.values()):
        text = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names)
        raise ValueError(f"the weights in {source} do not fit the backbone {type(module).__name__}: {text}.")
    module.load_state_dict(state)


def _read(path: Path, network: str | None) -> tuple[BackboneInfo, dict[str, Tensor]]:
    """What a file says about its backbone, and the weights of one of its networks (none for None)."""
    if _kind(path) == "export":
        return _read_export(path, load=network is not None)
    return _read_checkpoint(path, network)


def _kind(path: Path) -> Literal["export", "checkpoint"]:
    if not path.is_file():
        raise ValueError(f"there is no file {path}: {_REMEDY}.")
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":  # safetensors: eight bytes of length, then JSON
        return "export"
    if zipfile.is_zipfile(path) or start == _LEGACY_TORCH:
        return "checkpoint"
    raise ValueError(f"{path} is not a file of backbone weights: {_REMEDY}.")


def _read_export(path: Path, *, load: bool) -> tuple[BackboneInfo, dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        values = json.loads(metadata[_METADATA_KEY])
        keys, classifier = values.pop("keys", "timm"), values.pop("classifier", ())
        info = _info(**values)
    except KeyError:
        raise ValueError(f"{path} does not say which backbone it holds: {_REMEDY}.") from None
    except (safetensors.SafetensorError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({_reason(error)}): {_REMEDY}.") from None
    if not load:
        return info, {}
    tensors = _read_tensors(path)
    if keys == "torchvision":
        tensors = from_torchvision_keys(info.name, tensors)
    return info, {key: value for key, value in tensors.items() if key not in classifier}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:  # a dtype that this torch lacks is a KeyError, a claimed shape a RuntimeError, ...
        raise ValueError(f"{path} is damaged ({_reason(error)}): {_REMEDY}.") from None


def _load_checkpoint(path: Path) -> Any:
    try:
        return load_plain(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as plain weights ({error}): {_REMEDY}.") from None


def _read_checkpoint(path: Path, network: str | None) -> tuple[BackboneInfo, dict[str, Tensor]]:
    content = _load_checkpoint(path)
    try:
        original = parse_original(content)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as plain weights ({error}): {_REMEDY}.") from None
    if original is not None:
        return _read_original(path, original, network)
    if not isinstance(content, dict) or content.get("format") != CHECKPOINT_FORMAT:
        raise ValueError(f"{path} is not a checkpoint of sslight, nor of the original implementation: {_REMEDY}.")
    networks: dict[str, dict[str, Tensor]] = {}
    try:
        settings, model = content["settings"], content["model"]
        info = _info(
            name=settings["backbone"],
            image_size=settings["views"]["global_size"],
            patch_size=settings["patch_size"],
            mean=settings["views"]["mean"],
            std=settings["views"]["std"],
        )
        for key, value in model.items():
            if isinstance(value, Tensor) and (match := re.fullmatch(r"method\.(\w+)\.backbone\.(.+)", str(key))):
                networks.setdefault(match[1], {})[match[2]] = value
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({_reason(error)}): {_REMEDY}.") from None
    return info, {} if network is None else networks[_part(network, networks, path)]


def _read_original(
    path: Path, original: OriginalCheckpoint, network: str | None
) -> tuple[BackboneInfo, dict[str, Tensor]]:
    info = _info(
        name=original.backbone,
        image_size=original.image_size,
        patch_size=original.patch_size,
        mean=original.mean,
        std=original.std,
        notes={
            "source": "checkpoint of the original implementation (saic-fi/SSLight)",
            "method": original.method,
            **({} if original.epoch is None else {"epoch": str(original.epoch)}),
        },
    )
    if network is None:
        return info, {}
    try:
        return info, original.state(_part(network, original.networks, path))
    except ValueError as error:
        raise error if str(path) in str(error) else ValueError(f"{path}: {error}") from None


def _part(network: str, networks: Mapping[str, Mapping[str, Tensor]], path: Path) -> str:
    """The name under which a checkpoint has the network that was asked for."""
    for name in _SAME_PART.get(network, (network,)):
        if name in networks:
            return name
    raise ValueError(f"{path} has no network {network!r}: choose one of {', '.join(networks)}.")


def _info(**values: Any) -> BackboneInfo:
    """Plain data as read from a file, as the typed record."""
    values["mean"], values["std"] = tuple(values["mean"]), tuple(values["std"])
    info = BackboneInfo(**values)
    numbers = (*info.mean, *info.std)
    if not isinstance(info.name, str) or not all(isinstance(number, int | float) for number in numbers):
        raise ValueError("its description is of no backbone")
    if len(info.mean) != 3 or len(info.std) != 3 or not all(math.isfinite(n) for n in numbers) or min(info.std) <= 0:
        raise ValueError("its means or standard deviations are not three finite numbers each")
    # Before memory is taken for as many position embeddings.
    patch = 1 if info.patch_size is None else info.patch_size
    sides = [side for side in (info.image_size, patch) if type(side) is int and 1 <= side <= _LARGEST_SIDE]
    if len(sides) != 2 or (info.patch_size is not None and (info.image_size // patch) ** 2 > _MOST_PATCHES):
        raise ValueError(f"it claims views of {info.image_size} px and patches of {info.patch_size} px")
    return info


def _reason(error: Exception) -> str:
    text = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
    return text[:200] or type(error).__name__
