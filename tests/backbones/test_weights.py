"""Weights out and in."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from timm.models import register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from sslight.backbones import (
    build_backbone,
    load_backbone,
    load_backbone_weights,
    read_backbone_info,
    save_backbone,
)

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.21, 0.22)


@register_model  # type: ignore[untyped-decorator]
def plain_resnet(pretrained: bool = False, num_classes: int = 0, **unused: Any) -> nn.Module:
    """A network without timm's ``pretrained_cfg``."""
    network: nn.Module = ResNet(BasicBlock, (1, 1, 1, 1), num_classes=num_classes, channels=(8, 16, 16, 16))
    return network


def export(backbone: nn.Module, path: Path, name: str = "test_resnet", **changes: Any) -> Path:
    arguments = {"image_size": 32, "patch_size": None, "mean": MEAN, "std": STD, **changes}
    save_backbone(backbone, path, name=name, **arguments)
    return path


def write_checkpoint(path: Path, backbones: dict[str, nn.Module], **changes: Any) -> Path:
    model = {
        f"method.{network}.backbone.{key}": value
        for network, backbone in backbones.items()
        for key, value in backbone.state_dict().items()
    }
    model["method.student.head.mlp.0.weight"] = torch.zeros(2, 2)
    views = {"global_size": 32, "mean": list(MEAN), "std": list(STD)}
    settings = {"backbone": "test_resnet", "patch_size": None, "views": views}
    torch.save({"format": "sslight-checkpoint", "settings": settings, "model": model, **changes}, path)
    return path


@pytest.fixture
def trained() -> nn.Module:
    """A backbone whose weights and batch-norm buffers are not those of a new one."""
    backbone = build_backbone("test_resnet").to(memory_format=torch.channels_last)
    with torch.no_grad():
        backbone(torch.randn(4, 3, 32, 32))
    assert isinstance(backbone, nn.Module)
    return backbone


def test_an_export_comes_back_in_eval_mode_with_the_same_features(trained: nn.Module, tmp_path: Path) -> None:
    path = export(trained, tmp_path / "backbone.safetensors", notes={"recipe": "dino_cnn_sslight"})
    loaded = load_backbone(path)
    x = torch.randn(2, 3, 32, 32)
    assert not loaded.training
    torch.testing.assert_close(loaded(x), trained.eval()(x))
    info = read_backbone_info(path)
    assert (info.name, info.image_size, info.patch_size, info.mean, info.std) == (
        "test_resnet",
        32,
        None,
        MEAN,
        STD,
    )
    assert info.num_features == loaded(x).shape[1]
    assert info.notes == {"recipe": "dino_cnn_sslight"}
    of_folder = load_backbone(tmp_path)
    torch.testing.assert_close(of_folder(x), loaded(x))


def test_a_vit_comes_back_with_its_patch_and_native_size(tmp_path: Path) -> None:
    vit = build_backbone("vit_tiny", image_size=32, patch_size=8)
    path = export(vit, tmp_path / "vit.safetensors", name="vit_tiny", patch_size=8)
    x = torch.randn(1, 3, 24, 24)
    torch.testing.assert_close(load_backbone(path)(x), vit.eval()(x))


def test_a_network_that_its_author_registered_without_a_description_comes_back_too(tmp_path: Path) -> None:
    """A builder of timm's writes ``pretrained_cfg``; a plain class has none: runs ended at their first measurement."""
    backbone = build_backbone("plain_resnet").eval()
    about: dict[str, Any] = {"image_size": 32, "patch_size": None, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    save_backbone(backbone, tmp_path / "b.safetensors", name="plain_resnet", **about)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(load_backbone(tmp_path / "b.safetensors")(images), backbone(images))


def test_equal_backbones_are_exported_as_equal_bytes(trained: nn.Module, tmp_path: Path) -> None:
    paths = [export(trained, tmp_path / f"{i}.safetensors") for i in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.safetensors", "1.safetensors"]


def test_a_failed_export_leaves_the_old_file(
    trained: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = export(trained, tmp_path / "backbone.safetensors")
    before = path.read_bytes()

    def no_space(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="no space"):
        export(build_backbone("test_resnet"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("network", ["student", "teacher"])
def test_a_checkpoint_gives_the_network_that_was_asked_for(trained: nn.Module, tmp_path: Path, network: str) -> None:
    other = build_backbone("test_resnet")
    backbones = {"student": trained, "teacher": other}
    path = write_checkpoint(tmp_path / "last.pt", backbones)
    loaded = load_backbone(path, network=network)
    for key, value in backbones[network].state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    assert read_backbone_info(path).mean == MEAN
    fresh = build_backbone("test_resnet")
    load_backbone_weights(fresh, path, network=network)
    assert torch.equal(fresh.get_parameter("conv1.0.weight"), backbones[network].get_parameter("conv1.0.weight"))


def test_a_network_that_a_checkpoint_lacks_is_refused(trained: nn.Module, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "last.pt", {"student": trained})
    with pytest.raises(ValueError, match="no network 'teacher': choose one of student"):
        load_backbone(path, network="teacher")


def test_weights_that_do_not_fit_are_listed_and_nothing_changes(trained: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "backbone.safetensors"
    state = {key: value.contiguous() for key, value in trained.state_dict().items()}
    state["extra"] = torch.zeros(1)
    state["bn1.bias"] = torch.zeros(3)
    del state["conv1.0.weight"]
    info = {"name": "test_resnet", "image_size": 32, "patch_size": None, "mean": MEAN, "std": STD}
    safetensors.torch.save_file(state, path, metadata={"sslight": json.dumps(info)})
    target = build_backbone("test_resnet")
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(
        ValueError,
        match=r"missing: conv1\.0\.weight; left over: extra; of another shape: bn1\.bias \[3\] instead of .*; "
        r".*safetensors is of backbone=test_resnet: set that, or give other weights\.",
    ):
        load_backbone_weights(target, path)
    for key, value in target.state_dict().items():
        assert torch.equal(value, before[key])


def test_a_typed_network_is_not_taken_for_what_a_file_says(tmp_path: Path) -> None:
    path, other = tmp_path / "r18.pth", build_backbone("resnet34")
    state = build_backbone("resnet18").state_dict()
    remedy = "set backbone to the network of the file, or give other weights"
    few = {"state_dict": {"conv1.weight": state["conv1.weight"]}}
    for content, sentence in (
        (state, f"; these are not the weights of resnet34: {remedy}"),
        (few, rf"are not those of resnet34: 1 of \d+ entries fit \(.*\); {remedy}"),
        (
            {"arch": "resnet18", "state_dict": state},
            r"r18\.pth is of backbone=resnet18: set that, or give other weights",
        ),
        ({"arch": "resnet34", "state_dict": state}, r"missing: [^;]*: give other weights\.$"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=sentence):
            load_backbone_weights(other, path, name="resnet34")


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_checkpoint_with_code_in_it_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "last.pt", tmp_path / "ran"
    torch.save({"format": "sslight-checkpoint", "trap": Trap(trace)}, path)
    with pytest.raises(ValueError, match=r"last\.pt is damaged"):
        load_backbone(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        (b"", "not a file of backbone weights"),
        (b"PK\x03\x04 not really", "not a file of backbone weights"),
        (b"\xff\xff\xff\xff\x00\x00\x00\x00{", "is damaged"),
        (safetensors.torch.save({"a": torch.zeros(1)}), "does not say which backbone it holds"),
        (
            safetensors.torch.save({"a": torch.zeros(1)}, {"sslight": '{"name": "resnet18"}'}),
            "does not say|is damaged",
        ),
    ],
)
def test_anything_else_is_refused_in_one_sentence(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_backbone(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match=r"other\.pt holds no weights"):
        load_backbone(path)
