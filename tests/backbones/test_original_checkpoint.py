"""The original's checkpoints: every method and backbone, safely, or a sentence."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sslight.backbones import (
    build_backbone,
    load_backbone,
    load_backbone_weights,
    read_backbone_info,
)
from sslight.backbones.matching import load_matching, tensors_in
from sslight.backbones.original import parse_original
from tests.backbones.original_files import CfgNode, original_content, write_original, write_recorded_checkpoint
from tests.backbones.recorded import as_input, to_timm_keys
from tests.golden import assert_near, read_arrays, read_json

IMAGES = read_arrays("backbones/images.npz")
TABLES = read_json("checkpoints/key_tables.json")
NAMES = ["mobilenet_v2", "resnet18", "resnet34", "resnet50", "vit_tiny"]
NETWORKS = {
    "dino": {"student": "student", "teacher": "teacher"},
    "swav": {"network": "student"},
    "moco": {"encoder_q": "student", "encoder_k": "teacher"},
}


def table(method: str, name: str) -> dict[str, Tensor]:
    """A state dict with the keys and shapes of a full checkpoint, all zeros.

    For SwAV and MoCo the tables have MobileNetV2; other backbones take their place there.
    """
    entries = TABLES.get(f"{method}_{name}", TABLES[f"{method}_mobilenet_v2"])["state_dict"]
    if f"{method}_{name}" not in TABLES:
        start = "module.student.backbone."
        backbone = [entry for entry in TABLES[f"dino_{name}"]["state_dict"] if entry[0].startswith(start)]
        entries = [entry for entry in entries if ".backbone." not in entry[0]] + [
            [f"module.{network}.backbone.{key.removeprefix(start)}", shape, dtype]
            for network in NETWORKS[method]
            for key, shape, dtype in backbone
        ]
    return {key: torch.zeros(shape, dtype=getattr(torch, dtype)) for key, shape, dtype in entries}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", NETWORKS)
def test_every_key_of_every_method_and_backbone_has_its_place(method: str, name: str) -> None:
    content = original_content(method.upper(), name, table(method, name))
    parsed = parse_original(content, tensors_in(content))
    assert parsed is not None
    fields, regions = parsed
    assert fields["notes"]["method"].lower() == method
    assert len(regions) == len(NETWORKS[method])
    for region in regions.values():
        backbone = build_backbone(name)
        inside = {k.removeprefix(region): v for k, v in tensors_in(content).items() if k.startswith(region)}
        assert load_matching(backbone, inside, "the key table", strict=True) == []
        assert not any(p.any() for p in backbone.parameters())


def recorded_weights() -> dict[str, Tensor]:
    weights = read_arrays("backbones/mobilenet_v2_weights.npz")
    return {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded checkpoint with the recorded weights of MobileNetV2 as student, and twice them as teacher."""
    path = tmp_path_factory.mktemp("original") / "DINO_mobilenet_v2_last_ckpt.pth.tar"
    weights = recorded_weights()
    tensors = {f"module.student.backbone.{key}": value for key, value in weights.items()}
    tensors |= {f"module.teacher.backbone.{key}": 2 * value for key, value in weights.items()}
    write_recorded_checkpoint(path, tensors)
    return path


def test_a_checkpoint_of_the_original_gives_the_recorded_features(recorded: Path) -> None:
    expected = read_arrays("backbones/mobilenet_v2_expected.npz")
    backbone = load_backbone(recorded)
    assert not backbone.training
    for size in (224, 128):
        with torch.no_grad():
            assert_near(backbone(as_input(IMAGES[f"u{size}"])), expected[f"out.eval.{size}"], 1e-5, f"{size} px")
    info = read_backbone_info(recorded)
    assert (info.name, info.image_size, info.patch_size) == ("mobilenet_v2", 64, None)
    assert info.mean == (0.485, 0.456, 0.406)
    assert {key: info.notes[key] for key in ("method", "epoch")} == {"method": "DINO", "epoch": "2"}


def test_student_and_teacher_are_told_apart(recorded: Path) -> None:
    teacher = build_backbone("mobilenet_v2")
    load_backbone_weights(teacher, recorded, network="teacher")
    for key, value in to_timm_keys("mobilenet_v2", recorded_weights()).items():
        assert torch.equal(teacher.state_dict()[key], 2 * value)
    with pytest.raises(ValueError, match="no network 'key': choose one of student, teacher"):
        load_backbone(recorded, network="key")


@pytest.mark.skipif(
    "SSLIGHT_GOLDEN" not in os.environ,
    reason="the checkpoint is too large for the repository; SSLIGHT_GOLDEN names the folder of all recordings",
)
def test_the_whole_recorded_checkpoint_gives_its_recorded_features() -> None:
    folder = Path(os.environ["SSLIGHT_GOLDEN"]) / "checkpoints"
    with np.load(folder / "DINO_mobilenet_v2_last_ckpt_expected.npz", allow_pickle=False) as expected:
        for network in ("student", "teacher"):
            backbone = load_backbone(folder / "DINO_mobilenet_v2_last_ckpt.pth.tar", network=network)
            for dtype, prefix, tolerance in [(torch.float32, "out", 1e-5), (torch.float64, "out64", 1e-6)]:
                for size in (224, 128):
                    with torch.no_grad():
                        features = backbone.to(dtype)(as_input(IMAGES[f"u{size}"], dtype))
                    recorded = torch.from_numpy(expected[f"{prefix}.{network}.features.{size}"])
                    assert_near(features, recorded, tolerance, f"{network} {size} px")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("method", "trained"), [("SWAV", "network"), ("MOCO", "encoder_q")])
def test_the_trained_network_is_the_student_whatever_the_method_calls_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, trained: str, legacy: bool
) -> None:
    weights = recorded_weights()
    state = {f"module.{trained}.backbone.{key}": value for key, value in weights.items()}
    if method == "MOCO":
        state |= {f"module.encoder_k.backbone.{key}": 3 * value for key, value in weights.items()}
    content = original_content(method, "mobilenet_v2", state)
    path = write_original(monkeypatch, tmp_path / "last.pth.tar", content, legacy=legacy)
    student = load_backbone(path).state_dict()
    stem = weights["encoder.0.0.weight"]
    assert torch.equal(student["conv_stem.weight"], stem)
    if method == "MOCO":
        for name in ("teacher", "key"):
            assert torch.equal(load_backbone(path, network=name).state_dict()["conv_stem.weight"], 3 * stem)
    else:
        with pytest.raises(ValueError, match="no network 'teacher': choose one of network"):
            load_backbone(path, network="teacher")


def test_a_vit_comes_with_its_patch_and_the_size_of_its_position_embedding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = table("dino", "vit_tiny")
    path = write_original(monkeypatch, tmp_path / "vit.pth.tar", original_content("DINO", "vit_tiny", state))
    info = read_backbone_info(path)
    assert (info.name, info.image_size, info.patch_size) == ("vit_tiny", 224, 16)  # trained on 64 px views
    assert load_backbone(path)(torch.zeros(1, 3, 64, 64)).shape == (1, 192)


def test_weights_that_do_not_fit_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {f"module.student.backbone.{key}": value for key, value in recorded_weights().items()}
    del state["module.student.backbone.encoder.0.0.weight"]
    path = write_original(monkeypatch, tmp_path / "a.pth.tar", original_content("DINO", "mobilenet_v2", state))
    with pytest.raises(ValueError, match=r"a\.pth\.tar do not fit .*: missing: conv_stem\.weight\.$"):
        load_backbone(path)
    state["module.student.backbone.encoder.99.weight"] = torch.zeros(1)
    path = write_original(monkeypatch, tmp_path / "b.pth.tar", original_content("DINO", "mobilenet_v2", state))
    with pytest.raises(ValueError, match=r"b\.pth\.tar do not fit .*left over: encoder\.99\.weight\.$"):
        load_backbone(path)
    content = original_content("DINO", "resnet18", state)
    with pytest.raises(
        ValueError, match=r"c\.pth\.tar do not fit the backbone ResNet: missing: .* and \d+ more; left over"
    ):
        load_backbone(write_original(monkeypatch, tmp_path / "c.pth.tar", content))


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.trace}",))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["config", "attributes", "optimizer"])
def test_code_in_a_checkpoint_is_refused_with_a_sentence_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, legacy: bool
) -> None:
    trace = tmp_path / "ran"
    content = original_content("DINO", "mobilenet_v2", {})
    if place == "config":
        content["config"]["DATA"]["MEAN"] = Trap(trace)
    elif place == "attributes":
        content["config"].__dict__["__deprecated_keys__"] = {Trap(trace)}
    else:
        content["optimizer"] = {"state": [Trap(trace)]}
    path = write_original(monkeypatch, tmp_path / "bad.pth.tar", content, legacy=legacy)
    for use in (load_backbone, read_backbone_info):
        with pytest.raises(
            ValueError, match=r"bad\.pth\.tar cannot .*it would call \w+\.system, which is not run"
        ) as e:
            use(path)
        assert "\n" not in str(e.value)
    assert not trace.exists()


def test_a_file_that_only_looks_like_the_originals_is_none() -> None:
    assert parse_original({"config": 1, "state_dict": {}}, {}) is None
    assert parse_original({"config": {"lr": 1.0}, "state_dict": {}}, {}) is None


def without_data() -> CfgNode:
    config = original_content("DINO", "mobilenet_v2", {})["config"]
    del config["DATA"]
    assert isinstance(config, CfgNode)
    return config


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"config": CfgNode(MODEL=CfgNode())}, "its configuration has no SSL_METHOD"),
        ({"config": without_data()}, "its configuration has no DATA"),
        ({"config": CfgNode(SSL_METHOD=3)}, "its configuration is damaged"),
        ({"state_dict": {}}, "it says DINO, but has none of the networks student, teacher"),
        ({"state_dict": {"module.student.backbone.a": "text", 3: 4}}, "it says DINO, but has none of"),
    ],
)
def test_a_checkpoint_that_lacks_something_is_refused_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], sentence: str
) -> None:
    content = original_content("DINO", "mobilenet_v2", {}, **changes)
    path = write_original(monkeypatch, tmp_path / "last.pth.tar", content)
    with pytest.raises(ValueError, match=r"last\.pth\.tar is damaged") as error:
        load_backbone(path)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_cut_short_is_refused_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool
) -> None:
    content = original_content("DINO", "mobilenet_v2", {"module.student.backbone.a": torch.zeros(1000)})
    path = write_original(monkeypatch, tmp_path / "last.pth.tar", content, legacy=legacy)
    whole = path.read_bytes()
    for length in (20, 300, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"last\.pth\.tar (is not|cannot)") as error:
            load_backbone(path)
        assert "\n" not in str(error.value)
