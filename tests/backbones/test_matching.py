"""A network's weights are found in whatever file they are in, or what does not fit is listed."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn

from sslight.backbones import build_backbone, load_backbone, load_backbone_weights, open_weights
from sslight.backbones.matching import load_matching, tensors_in

NAME = "test_resnet"


@pytest.fixture(scope="module")
def whole() -> nn.Module:
    """A classification network of timm with weights of its own."""
    torch.manual_seed(7)
    network: nn.Module = timm.create_model(NAME, num_classes=5)
    return network


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


def lightning(state: dict[str, Tensor], network: nn.Module) -> dict[str, Any]:
    optimizer = torch.optim.AdamW(network.parameters())
    return {
        "epoch": 3,
        "state_dict": prefixed(state, "model.backbone."),
        "optimizer_states": [optimizer.state_dict()],
        "callbacks": {"ModelCheckpoint": {"dirpath": Path("/home/anyone"), "kinds": {1, 2}}},
        "hyper_parameters": argparse.Namespace(lr=0.1, optimizer=torch.optim.AdamW),
        "loops": {"fit_loop": optimizer},
    }


FILES: dict[str, Callable[[dict[str, Tensor], nn.Module], Any]] = {
    "plain": lambda state, _: state,
    "distributed": lambda state, _: {"model": prefixed(state, "module.")},
    "compiled": lambda state, _: prefixed(state, "_orig_mod.module.model."),
    "other order": lambda state, _: {"state_dict": prefixed(state, "module.encoder._orig_mod.")},
    "student": lambda state, _: {
        "net": prefixed(state, "student.backbone.") | {"student.head.mlp.0.weight": torch.ones(2)}
    },
    "lightning": lightning,
    "arguments": lambda state, _: {"model": state, "args": argparse.Namespace(arch="unknown"), "scaler": None},
    "whole module": lambda state, network: {"ema": None, "model": network},
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("suffix", ["pth", "ckpt"])
def test_weights_are_found_under_any_prefix_beside_anything(
    whole: nn.Module, tmp_path: Path, kind: str, suffix: str
) -> None:
    path = tmp_path / f"file.{suffix}"
    torch.save(FILES[kind](whole.state_dict(), whole), path, _use_new_zipfile_serialization=suffix == "pth")
    loaded = load_backbone(path, backbone=NAME).state_dict()
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in loaded.items())
    notes = load_backbone_weights(build_backbone(NAME), path)
    assert "fc (2 tensors)" in notes[0]
    assert notes[0].startswith("left out, since it is no part of the backbone: ")


def test_student_and_teacher_of_one_file_are_told_apart(whole: nn.Module, tmp_path: Path) -> None:
    state = whole.state_dict()
    double = {key: 2 * value for key, value in state.items()}
    path = tmp_path / "checkpoint.pth"
    both = {"teacher": prefixed(double, "backbone."), "student": prefixed(state, "module.backbone.")}
    torch.save({**both, "args": argparse.Namespace(arch=NAME, patch_size=16)}, path)
    stems = [load_backbone(path, network=n).get_parameter("conv1.0.weight") for n in ("student", "teacher")]
    assert torch.equal(stems[0], state["conv1.0.weight"])
    assert torch.equal(stems[1], 2 * stems[0])
    torch.save(both["student"], path)
    with pytest.raises(ValueError, match="has no network 'teacher'"):
        load_backbone(path, backbone=NAME, network="teacher")


def test_a_file_that_does_not_say_its_network_is_refused_with_what_to_write(whole: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(whole.state_dict(), path)
    with pytest.raises(
        ValueError, match=r"does not say which backbone it holds: name it, as in timm:resnet50@.*weights"
    ):
        load_backbone(path)
    assert load_backbone(path, backbone=NAME).num_classes == 0


def test_dinos_own_arguments_name_its_vit(tmp_path: Path) -> None:
    vit = build_backbone("vit_tiny", patch_size=8, image_size=32)
    path = tmp_path / "dino.pth"
    torch.save({"teacher": vit.state_dict(), "args": argparse.Namespace(arch="vit_tiny", patch_size=8)}, path)
    file = open_weights(path)
    assert file.info is not None
    assert (file.info.name, file.info.patch_size, file.info.image_size) == ("vit_tiny", 8, 32)
    assert torch.equal(file.build("teacher")[0].get_parameter("pos_embed"), vit.get_parameter("pos_embed"))


def test_position_embeddings_are_resized_and_patches_are_not(tmp_path: Path) -> None:
    path = tmp_path / "vit.pth"
    torch.save(build_backbone("vit_tiny", image_size=64).state_dict(), path)
    small = build_backbone("vit_tiny", image_size=32)
    assert load_backbone_weights(small, path) == ["the position embedding was resized from 4 x 4 to 2 x 2 patches"]
    assert load_backbone_weights(build_backbone("vit_tiny", image_size=64), path) == []
    with pytest.raises(ValueError, match=r"its patches are of 16 px: set patch_size=16\.$"):
        load_backbone_weights(build_backbone("vit_tiny", image_size=64, patch_size=8), path)


def test_what_a_file_says_of_its_input_is_compared_with_the_run(whole: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "own.pth"
    torch.save({"arch": NAME, "mean": [0.5] * 3, "std": [0.2] * 3, "model": whole.state_dict()}, path)
    notes = load_backbone_weights(build_backbone(NAME), path, mean=(0.485, 0.456, 0.406), std=(0.2, 0.2, 0.2))
    assert notes[1:] == [f"{path} was trained with views.mean=[0.5, 0.5, 0.5], this run has [0.485, 0.456, 0.406]"]


def test_missing_left_over_shapes_and_kinds_are_listed_and_nothing_changes(whole: nn.Module) -> None:
    backbone = build_backbone(NAME)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    state = dict(whole.state_dict())
    del state["conv1.0.weight"]
    state["layer1.7.conv1.weight"] = torch.ones(1)
    state["bn1.bias"] = torch.ones(3)
    state["bn1.weight"] = state["bn1.weight"].to(torch.int8)
    with pytest.raises(ValueError, match="missing") as error:
        load_matching(backbone, tensors_in({"state_dict": state}), "FILE")
    for part in (
        "missing: conv1.0.weight",
        "left over: state_dict.layer1.7.conv1.weight",
        "bn1.bias [3] instead of [",
        "int8",
    ):
        assert part in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_a_deeper_network_of_the_same_names_is_refused() -> None:
    with torch.device("meta"):
        state = timm.create_model("resnet34").state_dict()
    with pytest.raises(ValueError, match=r"left over: layer1\.2\.conv1\.weight"):
        load_matching(build_backbone("resnet18"), state, "FILE")


def test_a_classifier_beside_a_norm_of_the_backbone_is_left_out() -> None:
    whole = timm.create_model("convnext_atto", num_classes=3)
    backbone = build_backbone("convnext_atto")
    notes = load_matching(backbone, whole.state_dict(), "FILE")
    assert notes == ["left out, since it is no part of the backbone: head (2 tensors)"]
    assert torch.equal(backbone.get_parameter("head.norm.weight"), whole.head.norm.weight)


@pytest.mark.parametrize("content", [[torch.ones(2)], 3, {}, torch.ones(2), {"state_dict": [1]}])
def test_a_file_of_something_else_holds_no_weights(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt holds no weights"):
        load_backbone(tmp_path / "a.pt", backbone=NAME)


def test_files_without_batch_counters_are_as_good(whole: nn.Module) -> None:
    state = {key: value for key, value in whole.state_dict().items() if "num_batches" not in key}
    backbone = build_backbone(NAME)
    load_matching(backbone, state, "FILE")
    assert torch.equal(backbone.get_parameter("conv1.0.weight"), state["conv1.0.weight"])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("mobilenet_v2", "mobilenet_v2"),
        ("resnet18", "resnet18"),
        *[pytest.param(ours, theirs, marks=pytest.mark.slow) for ours, theirs in (
            ("resnet50", "resnet50"),
            ("mobilenetv3_large_100", "mobilenet_v3_large"),
            ("mobilenetv3_small_100", "mobilenet_v3_small"),
            ("mnasnet_100", "mnasnet1_0"),
            ("efficientnet_b0", "efficientnet_b0"),
            ("efficientnet_b1", "efficientnet_b1"),
            ("convnext_tiny", "convnext_tiny"),
            ("convnext_small", "convnext_small"),
            ("densenet121", "densenet121"),
        )],
    ],
)  # fmt: skip
def test_torchvisions_networks_give_the_same_features(ours: str, theirs: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = getattr(torchvision.models, theirs)().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    for parameter in network.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))  # or layer scales hide what they scale
    file = tmp_path / "torchvision.pth"
    torch.save({"model": prefixed(network.state_dict(), "module."), "args": argparse.Namespace(model=theirs)}, file)
    backbone = load_backbone(file, backbone=ours)
    last = network.fc if hasattr(network, "fc") else network.classifier
    last = last[-1] if isinstance(last, nn.Sequential) else last
    seen: list[Tensor] = []
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        network(images)
        torch.testing.assert_close(backbone(images), seen[0], rtol=1e-4, atol=1e-5)


def test_a_resnet_cut_into_numbered_layers_is_recognized() -> None:
    network = torchvision.models.resnet18()
    numbered = nn.Sequential(*list(network.children())[:-1])
    backbone = build_backbone("resnet18")
    notes = load_matching(backbone, {f"backbone.{key}": value for key, value in numbered.state_dict().items()}, "FILE")
    assert notes == []
    assert torch.equal(backbone.get_parameter("layer4.1.conv2.weight"), network.layer4[1].conv2.weight)
