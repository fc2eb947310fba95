"""Public weights by name: found, read like any file, or a sentence."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from sslight.backbones import build_backbone, find_public, is_public, load_backbone, load_backbone_weights, open_weights

NAME = "test_resnet"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """A hub with one repository, reached without a network."""
    state = timm.create_model(NAME, num_classes=3).state_dict()
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    description = {"architecture": NAME, "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}
    (tmp_path / "config.json").write_text(json.dumps(description))

    def download(repository: str, name: str, **_: Any) -> str:
        assert repository in ("anyone/small", "timm/test_resnet.r160_in1k")
        if not (tmp_path / name).is_file():
            raise EntryNotFoundError(name)
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return dict(state)


@pytest.mark.parametrize("source", ["hf-hub:anyone/small", "hf-hub:anyone/small@main", "timm:test_resnet"])
def test_public_weights_come_with_their_network_and_normalization(hub: dict[str, torch.Tensor], source: str) -> None:
    info = open_weights(source).described()
    assert info.name == NAME
    assert info.mean == ((0.1, 0.2, 0.3) if source.startswith("hf") else timm.get_pretrained_cfg(NAME).mean)
    fresh = build_backbone(NAME)
    assert "fc (2 tensors)" in load_backbone_weights(fresh, Path(source))[0]  # init_from is a path
    for backbone in (fresh, load_backbone(source)):
        assert torch.equal(backbone.get_parameter("conv1.0.weight"), hub["conv1.0.weight"])


def test_without_a_network_the_advice_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    for source, name in (("timm:resnet18", "resnet18"), ("hf-hub:anyone/small", "NAME")):
        named = rf"init_from=FILE backbone={name} \(other commands: timm:{name}@FILE\)"
        advice = f"download its weights file .* that file, with its network: {named}"
        with pytest.raises(ValueError, match=f"cannot be reached: {advice}") as error:
            load_backbone(source)
        assert str(error.value).startswith(source)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("timm:mobilnetv2_100", "the nearest names are"),
        ("timm:resnet18.nonsense", r"has a tag that timm does not know: write timm:resnet18\."),
        ("timm:test_resnet.untrained", "does not know"),
    ],
)
def test_names_that_do_not_exist_are_refused(source: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        find_public(source)


def test_a_repository_of_another_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(tmp_path / "config.json"))
    with pytest.raises(ValueError, match=r"is not a network of timm: its config\.json names no architecture"):
        find_public("hf-hub:anyone/bert")


def test_a_name_with_a_file_is_a_file() -> None:
    assert [is_public(s) for s in ("timm:resnet18", "hf-hub:a/b", "timm:resnet18@x.pth", "x.pth")] == [
        True,
        True,
        False,
        False,
    ]
