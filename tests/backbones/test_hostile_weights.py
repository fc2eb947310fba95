"""Damaged and forged files of weights are read or refused, before memory is taken for what they claim."""

import argparse
import io
import json
import multiprocessing
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from sslight.backbones import build_backbone, load_backbone, open_weights, read_backbone_info, save_backbone
from sslight.backbones.weights import CHECKPOINT_FORMAT
from tests.data.mutations import mutated

NAME = "test_resnet"


def export(path: Path) -> Path:
    save_backbone(
        build_backbone(NAME), path, name=NAME, image_size=32, patch_size=None, mean=(0.5,) * 3, std=(0.2,) * 3
    )
    return path


def content(**changes: Any) -> dict[str, Any]:
    weights = build_backbone(NAME).state_dict()
    views = {"global_size": 32, "mean": [0.5] * 3, "std": [0.2] * 3}
    return {
        "format": CHECKPOINT_FORMAT,
        "settings": {"backbone": NAME, "patch_size": None, "views": views},
        "model": {f"method.student.backbone.{key}": value for key, value in weights.items()},
    } | changes


def checkpoint(path: Path, **changes: Any) -> Path:
    torch.save(content(**changes), path)
    return path


def load_named(path: Path) -> None:
    load_backbone(path, backbone=NAME)


def attempt(path: Path) -> str:
    outcomes = set()
    for read in (load_named, load_backbone, read_backbone_info, open_weights):
        try:
            read(path)
            outcomes.add("read")
        except ValueError as error:
            is_sentence = str(path) in str(error) and "\n" not in str(error)
            outcomes.add("refused" if is_sentence else f"no sentence: {error}")
    return next(iter(outcomes)) if len(outcomes) == 1 else str(sorted(outcomes - {"read", "refused"}) or "refused")


def lightning(path: Path) -> Path:
    """A trainer's file: weights, optimiser, arguments, and objects of classes that are not here."""
    network = timm.create_model(NAME, num_classes=3)
    optimizer = torch.optim.AdamW(network.parameters())
    state = {f"model.backbone.{key}": value for key, value in network.state_dict().items()}
    others = {"optimizer_states": [optimizer.state_dict()], "loops": optimizer, "callbacks": {"path": Path("x")}}
    torch.save({"state_dict": state, "hyper_parameters": argparse.Namespace(lr=0.1, kinds={1}), **others}, path)
    return path


def check_mutations(folder: Path, number: int) -> Counter[str]:
    torch.save(content(), folder / "legacy.pt", _use_new_zipfile_serialization=False)
    originals = [
        checkpoint(folder / "whole.pt").read_bytes(),
        (folder / "legacy.pt").read_bytes(),
        export(folder / "whole.safetensors").read_bytes(),
        lightning(folder / "whole.ckpt").read_bytes(),
    ]
    path = folder / "mutated"
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def work() -> None:
        for seed in range(number):
            path.write_bytes(mutated(originals[seed % len(originals)], seed))
            try:
                sender.send(attempt(path))
            except BaseException as error:
                sender.send(f"{seed}: {type(error).__name__}: {error}")

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    sender.close()
    # A crash ends the pipe, and a hang leaves it empty.
    found = Counter(receiver.recv() if receiver.poll(60) else "hangs" for _ in range(number))
    process.kill()
    process.join()
    assert set(found) == {"read", "refused"}, found
    return found


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_mutated_weights_are_read_or_refused(tmp_path: Path) -> None:
    check_mutations(tmp_path, 18)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_hundred_mutated_weights_are_read_or_refused(tmp_path: Path) -> None:
    print(check_mutations(tmp_path, 200))


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": None},
        {"settings": {}},
        {"model": 3},
        {"settings": {"backbone": ["x"], "patch_size": None, "views": {}}},
        {"settings": {"backbone": NAME, "patch_size": 0, "views": content()["settings"]["views"]}},
        {
            "settings": {
                "backbone": "vit_tiny",
                "patch_size": 1,
                "views": {"global_size": 4096, "mean": [0.5] * 3, "std": [0.2] * 3},
            }
        },
        {
            "settings": {
                "backbone": NAME,
                "patch_size": None,
                "views": {"global_size": 10**9, "mean": [0] * 3, "std": [1] * 3},
            }
        },
        {
            "settings": {
                "backbone": NAME,
                "patch_size": None,
                "views": {"global_size": 32, "mean": [0] * 3, "std": [0] * 3},
            }
        },
        {"settings": {"backbone": "hf-hub:anyone/any", "patch_size": None, "views": content()["settings"]["views"]}},
    ],
)
def test_a_checkpoint_that_claims_what_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = checkpoint(tmp_path / "forged.pt", **changes)
    with pytest.raises(ValueError, match=r"forged.pt is damaged|is not a known network|names pre-trained weights"):
        load_backbone(path)


@pytest.mark.parametrize(
    "described",
    [
        "[" * 100_000,
        "3",
        "{}",
        json.dumps({"name": NAME, "image_size": 1e9, "patch_size": None, "mean": [0], "std": []}),
    ],
)
def test_an_export_that_describes_no_backbone_is_refused(tmp_path: Path, described: str) -> None:
    path = tmp_path / "forged.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(1)}, path, metadata={"sslight": described})
    with pytest.raises(ValueError, match=r"forged\.safetensors is damaged"):
        load_backbone(path)


def test_a_compressed_checkpoint_is_refused_before_it_unfolds(tmp_path: Path) -> None:
    whole = io.BytesIO()
    torch.save(content(), whole)
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            body = bytes(50_000_000) if member.filename.endswith("/data/0") else source.read(member)
            target.writestr(member.filename, body)
    assert path.stat().st_size < 10_000_000
    with pytest.raises(ValueError, match=r"it is compressed, which torch\.save never does"):
        load_backbone(path)


def test_a_tensor_that_claims_more_than_its_bytes_takes_no_memory(tmp_path: Path) -> None:
    forged = content()
    key = next(iter(forged["model"]))
    forged["model"][key] = torch.zeros(1).as_strided((10**6, 10**6), (0, 0))
    path = checkpoint(tmp_path / "forged.pt", model=forged["model"])
    with pytest.raises(ValueError, match="do not fit the backbone"):
        load_backbone(path)
