"""``sslight import``: from the original's checkpoint to our own file."""

import json
import sys
from pathlib import Path

import pytest
import timm
import torch

import sslight
from sslight.backbones import read_backbone_info
from sslight.cli.main import main
from tests.backbones.original_files import original_content, write_original
from tests.backbones.test_original_checkpoint import recorded_weights


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    weights = recorded_weights()
    state = {f"module.encoder_q.backbone.{key}": value for key, value in weights.items()}
    state |= {f"module.encoder_k.backbone.{key}": 2 * value for key, value in weights.items()}
    return write_original(monkeypatch, tmp_path / "last.pth.tar", original_content("MOCO", "mobilenet_v2", state))


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sslight", "import", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_import_writes_our_own_file_and_says_what_it_was(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "backbone.safetensors"
    assert run(monkeypatch, str(checkpoint), f"output={out}") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "the student network of MoCo, mobilenet_v2 with 1280 features, after 7 epochs; written to" in said
    ours, theirs = (sslight.load_backbone(path).state_dict() for path in (out, checkpoint))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    info = read_backbone_info(out)
    assert (info.image_size, info.num_features, info.notes["method"], info.notes["network"]) == (
        64,
        1280,
        "MoCo",
        "student",
    )
    teacher = tmp_path / "teacher.safetensors"
    assert run(monkeypatch, str(checkpoint), f"output={teacher}", "network=teacher", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["network"], result["epoch"], result["output"]) == ("teacher", "7", str(teacher))
    stem = sslight.load_backbone(teacher).state_dict()["conv_stem.weight"]
    assert torch.equal(stem, 2 * ours["conv_stem.weight"])


def test_import_replaces_nothing_and_takes_nothing_else(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "backbone.safetensors"
    out.write_bytes(b"precious")
    assert run(monkeypatch, str(checkpoint), f"output={out}") == 2
    assert "exists: name another file" in capsys.readouterr().err
    assert out.read_bytes() == b"precious"
    assert run(monkeypatch, str(checkpoint), f"output={tmp_path}/nowhere/a.safetensors") == 2
    assert "there is no folder" in capsys.readouterr().err
    assert run(monkeypatch, str(out), f"output={tmp_path}/new") == 2
    assert "is not a file of backbone weights" in capsys.readouterr().err
    assert run(monkeypatch, str(checkpoint), f"output={tmp_path}/new.safetensors") == 0
    assert run(monkeypatch, str(tmp_path / "new.safetensors"), f"output={tmp_path}/newer.safetensors") == 2
    assert "was written by this program: use it directly" in capsys.readouterr().err


def test_import_takes_other_programs_weights_by_the_name_of_their_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = timm.create_model("test_resnet", num_classes=3)
    file, out = tmp_path / "theirs.ckpt", tmp_path / "ours.safetensors"
    torch.save({"state_dict": {f"model.{key}": value for key, value in whole.state_dict().items()}}, file)
    assert run(monkeypatch, str(file), f"output={out}") == 2
    assert "(import: backbone=resnet50;" in " ".join(capsys.readouterr().err.split())
    assert run(monkeypatch, str(file), f"output={out}", "backbone=test_resnet") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "left out, since it is no part of the backbone: fc (2 tensors); input normalized as timm says of" in said
    loaded = sslight.load_backbone(out).state_dict()
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in loaded.items())
    assert read_backbone_info(out).notes["source"] == str(file)
