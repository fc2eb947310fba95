"""Public weights by name, ``timm:NAME`` or ``hf-hub:OWNER/NAME``, from the Hugging Face hub."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm

from sslight.backbones.build import timm_name

_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class PublicWeights:
    """``architecture``: timm's name; ``config``: what its publisher says of the input; ``repository`` of the hub."""

    architecture: str
    config: dict[str, Any]
    repository: str


def is_public(source: str) -> bool:
    """Whether a setting names public weights instead of a file: ``timm:NAME`` without a file, or ``hf-hub:NAME``."""
    return source.startswith("hf-hub:") or (source.startswith("timm:") and "@" not in source)


def find_public(source: str) -> PublicWeights:
    """What a public name stands for; for ``hf-hub:`` its description is downloaded.

    Raises ValueError if there is no such network or description, or it cannot be downloaded.
    """
    kind, _, name = source.partition(":")
    if kind == "timm":
        config = timm_config(name)
        if not config.get("hf_hub_id"):
            named = _with_network(name.partition(".")[0])
            raise ValueError(f"{source}: timm knows no public weights for it; give a weights file, {named}.")
        return PublicWeights(timm_name(name.partition(".")[0]), config, config["hf_hub_id"])
    content = json.loads(_fetch(name, ("config.json",), source, "NAME").read_text(encoding="utf-8"))
    try:
        config = {**content, **content.get("pretrained_cfg", {})}
        return PublicWeights(timm_name(content["architecture"].partition(".")[0]), config, name)
    except (KeyError, AttributeError, TypeError):
        raise ValueError(f"{source} is not a network of timm: its config.json names no architecture.") from None


def fetch_public(public: PublicWeights, source: str) -> Path:
    """The file of the weights, downloaded unless the hub's cache has it; errors as for :func:`find_public`."""
    return _fetch(public.repository, _FILES, source, public.architecture)


def timm_config(name: str) -> dict[str, Any]:
    """What timm knows of an architecture or of its weights (``NAME.TAG``): input size, mean, std, classifier.

    Raises ValueError for a name or tag that timm does not know.
    """
    architecture, _, tag = name.partition(".")
    full = timm_name(architecture) + (f".{tag}" if tag else "")
    try:
        config = timm.get_pretrained_cfg(full)
    except RuntimeError:
        raise ValueError(f"timm:{name} has a tag that timm does not know: write timm:{architecture}.") from None
    return dict(config.to_dict())


def _with_network(name: str) -> str:
    """How to name the network of a file, which does not say it."""
    return f"with its network: init_from=FILE backbone={name} (other commands: timm:{name}@FILE)"


def _fetch(repository: str, names: tuple[str, ...], source: str, network: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, _, revision = repository.partition("@")
    named = _with_network(network)
    for name in names:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name, revision=revision or None, etag_timeout=10))
        except LocalEntryNotFoundError:
            raise ValueError(
                f"{source} is not on this machine, and the hub (huggingface.co) cannot be reached: "
                f"download its weights file elsewhere and give that file, {named}."
            ) from None
        except EntryNotFoundError:
            continue
        except Exception as error:  # of the network, of rights, of the name
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            raise ValueError(
                f"{source} cannot be fetched from the hub ({reason}): give a file instead, {named}."
            ) from None
    raise ValueError(f"{source} has no file {' or '.join(names)} on the hub: give a weights file instead, {named}.")
