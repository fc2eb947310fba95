"""Backbone weights in files: the export, and reading it, checkpoints and anyone's files back, safely."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import timm
from torch import Tensor, nn

from sslight.backbones.build import ALIASES, build_backbone, num_features, patch_side
from sslight.backbones.header import METADATA_KEY, further_notes
from sslight.backbones.hub import fetch_public, find_public, is_public, timm_config
from sslight.backbones.key_names import to_torchvision_keys
from sslight.backbones.matching import MOST_PATCHES, NAME_IT, load_matching, tensors_in
from sslight.backbones.original import parse_original
from sslight.backbones.plain_files import is_torch_file, load_plain
from sslight.files import whole_file
from sslight.reading import near_name

CHECKPOINT_FORMAT = "sslight-checkpoint"
_LARGEST_SIDE = 4096
_ASSUMED = "normalization"  # a note of who says it, where the file does not
_REMEDY = "give a run folder, or a file of weights: .safetensors, .pth, .pt, .ckpt or .pth.tar"
# The network trained by gradients and the one that follows it as a mean, whatever the method calls them.
_SAME_PART = {"student": ("student", "network", "query"), "teacher": ("teacher", "key")}


@dataclass(frozen=True)
class BackboneInfo:
    """What is needed to build a backbone again and to feed it.

    ``name``, ``image_size`` (px) and ``patch_size`` (px or None) as in
    :func:`~sslight.backbones.build_backbone`; ``mean`` and ``std`` of the channels (of 0–1) by which
    its input is normalized; ``num_features`` (None where the file does not say); ``notes``: free text.
    """

    name: str
    image_size: int
    patch_size: int | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    num_features: int | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def assumes_normalization(self) -> bool:
        """Whether ``mean`` and ``std`` are only what timm says of the network."""
        return _ASSUMED in self.notes

    def to_build(self) -> dict[str, Any]:
        """What :func:`save_backbone` takes of it."""
        return {name: value for name, value in vars(self).items() if name != "num_features"}


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

    ``name`` to ``notes`` are those of :class:`BackboneInfo`.

    Args:
        backbone: From :func:`~sslight.backbones.build_backbone`; its parameters and buffers are written.
        path: The file, replaced if it exists.
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
    content = safetensors.torch.save(tensors, metadata={METADATA_KEY: json.dumps(info)})
    with whole_file(Path(path), "wb") as file:
        file.write(content)


@dataclass(frozen=True)
class WeightsFile:
    """What a file of weights holds and says.

    Attributes:
        source: Its path, or the public name by which it was asked for.
        tensors: Of all networks in it, by dotted path.
        info: Of the backbone; None where neither the file nor who asked for it says which it is.
        says: The network that the file itself, or its publisher, names; None where only who asked for it does.
        regions: Our names of the networks in a file of known format, the trained one first, and the paths under
            which they are; None for other files, in which networks are looked for.
        own: Whether this program wrote it.
    """

    source: str
    tensors: Mapping[str, Tensor]
    info: BackboneInfo | None
    says: str | None = None
    regions: Mapping[str, str] | None = None
    own: bool = False

    def described(self) -> BackboneInfo:
        """The info; raises ValueError if there is none."""
        if self.info is None:
            raise ValueError(
                f"{self.source} does not say which backbone it holds: name it, as in timm:resnet50@{self.source} "
                "(import: backbone=resnet50; load_backbone: backbone='resnet50')."
            )
        return self.info

    @property
    def pretrained_here(self) -> bool:
        """Whether this program pre-trained it, and from new weights."""
        return self.own and self.info is not None and "source" not in self.info.notes

    def load_into(self, backbone: nn.Module, network: str = "student") -> list[str]:
        """Put the weights of one network into a backbone; as :func:`~sslight.backbones.matching.load_matching`."""
        if self.regions is None:
            return load_matching(backbone, self.tensors, self.source, network=network)
        names = tuple(self.regions) if "" in self.regions.values() else _SAME_PART.get(network, (network,))
        region = next((self.regions[name] for name in names if name in self.regions), None)
        if region is None:
            raise ValueError(f"{self.source} has no network {network!r}: choose one of {', '.join(self.regions)}.")
        inside = {key.removeprefix(region): value for key, value in self.tensors.items() if key.startswith(region)}
        return load_matching(backbone, inside, self.source, strict=True)

    def build(self, network: str = "student") -> tuple[nn.Module, list[str]]:
        """The backbone with its weights, in eval mode, and what was left out or changed."""
        info = self.described()
        backbone = build_backbone(info.name, image_size=info.image_size, patch_size=info.patch_size)
        return backbone.eval(), self.load_into(backbone, network)

    def projection_head(self, network: str = "student") -> dict[str, Tensor] | None:
        """The MLP of the DINO projection head that was trained with the backbone; None where the file has none.

        A state dict of layers by position, such as ``0.weight`` (linear) and ``1.running_mean`` (batch norm).
        """
        region = (self.regions or {}).get(network, "-").removesuffix("backbone.")
        head = f"{region}head.mlp."
        return {key.removeprefix(head): value for key, value in self.tensors.items() if key.startswith(head)} or None


def open_weights(source: str | Path, *, backbone: str | None = None) -> WeightsFile:
    """Read a file of weights, or public weights by name; nothing in it is executed.

    Args:
        source: A run folder, its ``backbone.safetensors``, a checkpoint, a ``.pth.tar`` of the original implementation,
            anyone's ``.safetensors``, ``.pth``, ``.pt`` or ``.ckpt``, ``timm:NAME`` or ``hf-hub:OWNER/NAME`` (these
            two are downloaded, unless they were before). ``~`` is the home folder.
        backbone: Which network it is of, for files that do not say; with a tag for timm's input of these weights.

    Raises:
        ValueError: the file is missing, damaged or of another kind, or there is no way to download it.
    """
    text = str(source)
    if is_public(text):
        public = find_public(text)
        facts = {**public.config, "architecture": public.architecture}
        return _foreign(open_weights(fetch_public(public, text)).tensors, facts, text, public.architecture)
    path = Path(source).expanduser()
    path = path / "backbone.safetensors" if path.is_dir() else path
    if not path.is_file():
        near = f"; did you mean timm:{text}?" if timm.is_model(text) else near_name(path)
        raise ValueError(f"there is no file {path}: {_REMEDY}{near}")
    with path.open("rb") as file:
        is_safetensors = file.read(9)[8:] == b"{"  # eight bytes of length, then JSON
    if is_safetensors:
        return _open_safetensors(path, backbone)
    if not is_torch_file(path):
        raise ValueError(f"{path} is not a file of backbone weights, or is damaged: {_REMEDY}.")
    try:
        content = load_plain(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as plain weights ({error}): {_REMEDY}.") from None
    is_checkpoint = isinstance(content, dict) and content.get("format") == CHECKPOINT_FORMAT
    if is_checkpoint and isinstance(settings := content.get("settings"), dict) and "model" in settings:
        raise ValueError(f"{path} is a checkpoint of a run with labels: let it end, and give what it writes then.")
    try:
        if is_checkpoint:
            return _open_checkpoint(content, path)
        tensors = tensors_in(content)
        if (original := parse_original(content, tensors)) is not None:
            info = _info(**original[0])
            return WeightsFile(str(path), tensors, info, info.name, original[1])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({_reason(error)}): {_REMEDY}.") from None
    return _foreign(tensors, _facts(content), str(path), backbone)


def load_backbone(path: str | Path, *, network: str = "student", backbone: str | None = None) -> nn.Module:
    """A pre-trained backbone as a timm module in eval mode: ``x [B, 3, H, W]`` → ``[B, num_features]``.

    The input is RGB of 0–1, normalized by ``mean`` and ``std`` of :func:`read_backbone_info`.

    Args:
        path: As ``source`` of :func:`open_weights`; ``backbone`` too.
        network: Which network of a checkpoint: ``student``, the one that was trained (in SwAV the only one, in
            MoCo the query network), or ``teacher`` (in MoCo the key network). An export holds one only.

    Raises:
        ValueError: the file is missing, damaged, or not of these kinds, or has no such network.
    """
    return open_weights(path, backbone=backbone).build(network)[0]


def load_backbone_weights(
    backbone: nn.Module,
    path: str | Path,
    *,
    network: str = "student",
    name: str | None = None,
    mean: Iterable[float] | None = None,
    std: Iterable[float] | None = None,
) -> list[str]:
    """Put the weights of a file into a backbone, in place, matched by name and shape.

    ``path`` and ``network`` are those of :func:`load_backbone`. ``mean`` and ``std``, by which the input will be
    normalized, are compared with what the file says, or else timm of the network ``name``. Returns what was left out or
    changed, or is to be looked at: sentences without a full stop. Raises ValueError as :func:`load_backbone`, or if
    weights are missing, left over or of another shape (they are listed; ``backbone`` is unchanged).
    """
    file = open_weights(path, backbone=name)
    try:
        notes = file.load_into(backbone, network)
    except ValueError as error:
        if file.info is None or "patch_size" in str(error):
            raise
        text = str(error).rstrip(".")
        raise ValueError(f"{text.removesuffix(NAME_IT)}{_other_network(file, name, text)}.") from None
    if file.info is not None:
        for setting, values in (("mean", mean), ("std", std)):
            theirs = getattr(file.info, setting)
            if values is not None and any(abs(a - b) > 1e-3 for a, b in zip(values, theirs, strict=True)):
                said = f"was trained with views.{setting}={[*theirs]}"
                if file.info.assumes_normalization:
                    said = f"does not say its views.{setting}: timm's weights of {file.info.name} have {[*theirs]}"
                    said += f" (if these are timm's, set views.{setting}={str([*theirs]).replace(' ', '')})"
                notes.append(f"{file.source} {said}, this run has {[*values]}")
    return notes


def read_backbone_info(path: str | Path) -> BackboneInfo:
    """Name, sizes and normalization of the backbone in a file; errors as for :func:`load_backbone`."""
    return open_weights(path).described()


def _open_safetensors(path: Path, backbone: str | None) -> WeightsFile:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = safetensors.torch.load_file(path)
    except Exception as error:  # a dtype that this torch lacks is a KeyError, a claimed shape a RuntimeError, ...
        raise ValueError(f"{path} is damaged ({_reason(error)}): {_REMEDY}.") from None
    if METADATA_KEY not in metadata:
        return _foreign(tensors, {}, str(path), backbone)
    try:
        values = json.loads(metadata[METADATA_KEY])
        classifier = values.pop("classifier", ())
        values.pop("keys", None)  # the names are recognized
        info = _info(**values)
        tensors = {key: value for key, value in tensors.items() if key not in classifier}
    except (KeyError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({_reason(error)}): {_REMEDY}.") from None
    return WeightsFile(str(path), tensors, info, info.name, {"": ""}, own=True)


def _open_checkpoint(content: Mapping[str, Any], path: Path) -> WeightsFile:
    """A checkpoint of this program."""
    settings, tensors = content["settings"], tensors_in(content)
    views = settings["views"]
    sizes = {"image_size": views["global_size"], "patch_size": settings["patch_size"]}
    notes = further_notes(settings.get("init_from"))
    info = _info(name=settings["backbone"], **sizes, mean=views["mean"], std=views["std"], notes=notes)
    regions = {m[2]: m[1] for key in tensors if (m := re.match(r"(model\.method\.(\w+)\.backbone\.)", key))}
    if not regions:
        raise ValueError("it has no backbone")
    return WeightsFile(str(path), tensors, info, info.name, regions, own=True)


def _foreign(tensors: Mapping[str, Tensor], facts: Mapping[str, Any], source: str, backbone: str | None) -> WeightsFile:
    """Another program's file; ``facts``: what it says beside the weights."""
    if not tensors:
        raise ValueError(f"{source} holds no weights: {_REMEDY}.")
    named = _named(facts)
    name = backbone or named
    if name is None:
        return WeightsFile(source, tensors, None)
    config, architecture = timm_config(name), name.partition(".")[0]
    is_said = _is_three(facts.get("mean")) and _is_three(facts.get("std"))
    said = facts if is_said else config
    values = {"image_size": config["input_size"][-1], "patch_size": None, "mean": said["mean"], "std": said["std"]}
    if patch_side(architecture) is not None:
        values |= _vit_sizes(tensors)
    notes = {} if is_said else {_ASSUMED: f"as timm says of {name}"}
    says = named and named.partition(".")[0]
    return WeightsFile(source, tensors, _info(name=architecture, **values, notes=notes), says)


def _facts(content: Any) -> dict[str, Any]:
    """What a file says beside its weights: its own entries, its arguments, a trainer's hyper-parameters."""
    if not isinstance(content, dict):
        return {}
    parts = [content, *(content.get(key) for key in ("hyper_parameters", "config", "args"))]
    return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}


def _other_network(file: WeightsFile, name: str | None, found: str) -> str:
    """What to do about weights that are not of the network ``name``, as was ``found``."""
    if file.says is None:
        known = "" if found.endswith(NAME_IT) else f" these are not the weights of {name}:"
        return f";{known} set backbone to the network of the file, or give other weights"
    if name is not None and ALIASES.get(name, name) == ALIASES.get(file.says, file.says):
        return ": give other weights"
    return f"; {file.source} is of backbone={file.says}: set that, or give other weights"


def _named(facts: Mapping[str, Any]) -> str | None:
    """The network that a file names, if timm has it."""
    for key in ("architecture", "arch", "model_name", "backbone", "model"):
        if isinstance(said := facts.get(key), str):
            for name in (said, said.lower(), f"{said}_patch{facts.get('patch_size')}_224"):  # the last: DINO's
                if timm.is_model(ALIASES.get(name, name).partition(".")[0]):
                    return name
    return None


def _vit_sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Patch and native image side in px of the first ViT in the file."""
    patch = next((v.shape[-1] for k, v in tensors.items() if k.endswith("patch_embed.proj.weight") and v.ndim == 4), 0)
    grids = [math.isqrt(v.shape[1]) for k, v in tensors.items() if k.split(".")[-1] == "pos_embed" and v.ndim == 3]
    return {"patch_size": patch, "image_size": grids[0] * patch} if patch and grids and grids[0] else {}


def _is_three(values: Any) -> bool:
    return isinstance(values, list | tuple) and len(values) == 3 and all(isinstance(v, float | int) for v in values)


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
    if len(sides) != 2 or (info.patch_size is not None and (info.image_size // patch) ** 2 > MOST_PATCHES):
        raise ValueError(f"it claims views of {info.image_size} px and patches of {info.patch_size} px")
    return info


def _reason(error: Exception) -> str:
    text = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
    return text[:200] or type(error).__name__
