"""What can be evaluated: our files, the original's, and timm's networks with or without weights."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from sslight.api.pretrain import run_pretraining
from sslight.backbones import load_backbone, num_features, open_weights
from sslight.backbones.fingerprint import weights_fingerprint
from sslight.config import PretrainSettings
from sslight.data import build_source
from sslight.evaluate.model import choose_image_size, default_folder, load_model
from tests.backbones.original_files import original_content, write_original


def test_a_timm_network_comes_with_its_own_size_and_new_weights_from_the_seed() -> None:
    models = [load_model("timm:test_resnet", network="student", seed=seed) for seed in (1, 1, 2)]
    prints = [weights_fingerprint(model.backbone) for model in models]
    assert prints[0] == prints[1] != prints[2]
    assert choose_image_size(models[0], None) == timm.get_pretrained_cfg("test_resnet").input_size[-1]
    assert choose_image_size(models[0], 64) == 64
    assert not models[0].backbone.training
    assert models[0].notes == "untrained, weights drawn with seed 1"


@pytest.mark.parametrize("kind", ["safetensors", "pth", "wrapped"])
def test_weights_of_a_whole_classification_network_are_loaded_without_its_classifier(kind: str, tmp_path: Path) -> None:
    whole = timm.create_model("test_resnet", pretrained=False, num_classes=7).eval()
    file = tmp_path / f"weights.{kind}"
    if kind == "safetensors":
        safetensors.torch.save_file(whole.state_dict(), file)
    elif kind == "pth":
        torch.save(whole.state_dict(), file)
    else:
        torch.save({"state_dict": {f"module.{key}": value for key, value in whole.state_dict().items()}}, file)
    model = load_model(f"timm:test_resnet@{file}", network="student", seed=0)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = whole.forward_head(whole.forward_features(images), pre_logits=True)
        torch.testing.assert_close(model.backbone(images), expected)
    assert model.notes == (
        f"weights from {file}; left out, since it is no part of the backbone: fc (2 tensors); "
        f"input normalized as timm says of test_resnet"
    )


def test_a_tag_gives_the_normalisation_of_its_weights(tmp_path: Path) -> None:
    file = tmp_path / "vit.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), file)
    model = load_model(f"timm:vit_tiny_patch16_224.augreg_in21k@{file}", network="student", seed=0)
    assert model.info.mean == timm.get_pretrained_cfg("vit_tiny_patch16_224.augreg_in21k").mean
    assert model.info.name == "vit_tiny_patch16_224"
    assert "left out, since it is no part of the backbone: head (2 tensors)" in model.notes
    assert "input normalized as timm says of vit_tiny_patch16_224.augreg_in21k" in model.notes


def test_weights_of_another_network_are_refused_in_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_vit", pretrained=False).state_dict(), file)
    with pytest.raises(ValueError, match=r"are not those of test_resnet: 0 of \d+ entries fit") as error:
        load_model(f"timm:test_resnet@{file}", network="student", seed=0)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("checkpoint", "sentence"),
    [
        ("timm:mobilnetv2_100", "the nearest names are"),
        ("timm:resnet18.nonsense", r"has a tag that timm does not know: write timm:resnet18\."),
        ("timm:test_resnet@nowhere.pth", r"there is no file nowhere\.pth"),
        ("nowhere.safetensors", r"there is no file nowhere\.safetensors"),
    ],
)
def test_what_is_not_there_is_refused(checkpoint: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_model(checkpoint, network="student", seed=0)


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "weights.pth")
    with pytest.raises(
        ValueError, match=r"holds no weights: give a run folder, or a file of weights: \.safetensors, \.pth"
    ):
        load_model(f"timm:test_resnet@{tmp_path / 'weights.pth'}", network="student", seed=0)


def test_a_run_gives_its_student_its_teacher_and_its_projection_head(
    tiny: Callable[..., PretrainSettings], tmp_path: Path
) -> None:
    run_pretraining(tiny())
    checkpoint = tmp_path / "run" / "checkpoints" / "last.pt"
    student, teacher = (load_model(str(checkpoint), network=n, seed=0) for n in ("student", "teacher"))
    assert weights_fingerprint(student.backbone) == weights_fingerprint(load_backbone(checkpoint))
    assert weights_fingerprint(student.backbone) != weights_fingerprint(teacher.backbone)
    assert student.projection is not None
    assert student.projection["0.weight"].shape == (16, num_features(student.backbone))
    assert choose_image_size(student, None) == 32
    export = tmp_path / "run" / "backbone.safetensors"
    assert load_model(str(export), network="student", seed=0).projection is None
    assert default_folder(str(checkpoint)) == default_folder(str(export)) == tmp_path / "run" / "evaluation"
    assert default_folder("timm:test_resnet") == Path("evaluation")


@pytest.mark.parametrize(("method", "found"), [("DINO", True), ("SWAV", False)])
def test_the_projection_head_of_an_original_checkpoint_is_read(
    method: str, found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = {"DINO": "student", "SWAV": "network"}[method]
    state: dict[str, Any] = {
        f"module.{part}.backbone.encoder.0.weight": torch.zeros(2),
        f"module.{part}.head.mlp.0.weight": torch.ones(4, 3),
        f"module.{part}.head.last_layer.weight_v": torch.ones(4, 3),
    }
    path = write_original(monkeypatch, tmp_path / "old.pth.tar", original_content(method, "resnet18", state))
    head = open_weights(path).projection_head()
    assert (head is not None and list(head) == ["0.weight"]) if found else head is None


def test_a_new_network_takes_the_size_of_images_that_are_smaller_than_its_own(
    image_folder: Callable[..., Path],
) -> None:
    small, large = (
        build_source([str(image_folder(f"{size} px", each=3, size=size))], labeled=False) for size in (40, 400)
    )
    new = load_model("timm:test_resnet", network="student", seed=0)
    own = new.info.image_size
    assert choose_image_size(new, None, small) == 40
    assert choose_image_size(new, None, large) == own
    assert choose_image_size(new, 64, small) == 64
    fixed = load_model("timm:test_vit", network="student", seed=0)  # 40 px are no multiple of its patches
    assert choose_image_size(fixed, None, small) == fixed.info.image_size
    assert choose_image_size(replace(new, untrained=False), None, small) == own
