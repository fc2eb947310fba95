"""What a backbone says of the weights that its pre-training began with, whatever lies there by now."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sslight.backbones.header import further_notes, read_header


def write(path: Path, header: object) -> Path:
    save_file({"x": torch.zeros(1)}, path, metadata={"sslight": json.dumps(header)})
    return path


@pytest.mark.parametrize(
    ("header", "own"),
    [
        ({"name": "resnet18", "notes": {}}, True),
        ({"name": "resnet18"}, True),
        ({"name": "resnet18", "notes": {"source": "x.pth"}}, False),
        ({}, False),
        ([1], False),
        ({"notes": 7}, True),
    ],
)
def test_weights_count_as_our_own_if_they_began_with_new_ones(header: object, own: bool, tmp_path: Path) -> None:
    file = write(tmp_path / "backbone.safetensors", header)
    for start, name in ((file, "backbone.safetensors"), (tmp_path, tmp_path.name)):
        assert further_notes(start) == ({} if own else {"source": f"{name}, pre-trained further"})


def test_public_names_stay_and_paths_are_not_told() -> None:
    assert further_notes(None) == {}
    assert further_notes("timm:resnet18.a1_in1k") == {"source": "timm:resnet18.a1_in1k, pre-trained further"}
    assert further_notes(Path("hf-hub:timm/resnet18")) == {"source": "hf-hub:timm/resnet18, pre-trained further"}
    assert further_notes("/home/me/gone.pth") == {"source": "gone.pth, pre-trained further"}


def test_nothing_that_lies_there_can_stop_the_end_of_a_run(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "damaged").write_bytes(b"\xff" * 100)
    (tmp_path / "deep").mkdir()
    save_file({"x": torch.zeros(1)}, tmp_path / "nested", metadata={"sslight": "[" * 100_000})
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "damaged", "deep", "nested", "loop", "none", "x" * 300):
        assert read_header(tmp_path / name) == {}
        assert further_notes(tmp_path / name)["source"].endswith("pre-trained further")
