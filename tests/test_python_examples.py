"""The Python examples run as they stand, on small images."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

import sslight
from sslight.backbones import build_backbone, save_backbone

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *words: str | Path) -> None:
    """Call the ``main`` of an example with the words of a command line."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    module.main([str(word) for word in words])


def losses(printed: str) -> list[float]:
    return [float(line.split("loss ")[1].split(",")[0]) for line in printed.splitlines()]


def test_every_python_example_is_short_and_tested_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {"own_loop", "own_dataset", "fine_tune"}
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 80, path.name


def test_the_own_loop_takes_finite_steps_and_leaves_weights_that_timm_loads(
    image_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, output = image_folder("images", each=9), tmp_path / "backbone.pt"
    views = ["--recipe", "dino_cnn_sslight_64", "--backbone", "test_resnet"]
    run("own_loop", images, *views, "--epochs", "2", "--batch-size", "4", "--output", output)
    found = losses(capsys.readouterr().out)
    assert len(found) == 4
    assert np.isfinite(found).all()
    assert found[0] == pytest.approx(np.log(1024), rel=0.02)  # before the first step nothing is known
    untrained = timm.create_model("test_resnet", num_classes=0).state_dict()
    loaded = timm.create_model("test_resnet", num_classes=0, checkpoint_path=str(output)).state_dict()
    assert any(not torch.equal(untrained[key], value) for key, value in loaded.items())


def test_the_own_dataset_of_16_bit_pixels_gives_a_backbone_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    pixels = tmp_path / "pixels.npy"
    np.save(pixels, np.kron(rng.integers(0, 4096, (8, 5, 5)), np.ones((8, 8))).astype(np.uint16))
    output = tmp_path / "backbone.safetensors"
    words = ["--size", "32", "--epochs", "2", "--batch-size", "4", "--prototypes", "20"]
    run("own_dataset", pixels, *words, "--output", output)
    found = losses(capsys.readouterr().out)
    assert len(found) == 2
    assert np.isfinite(found).all()
    assert sslight.load_backbone(output)(torch.zeros(1, 3, 32, 32)).shape == (1, 512)


def test_fine_tuning_starts_from_the_pretrained_weights_and_writes_a_classifier(
    image_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone, gray = tmp_path / "backbone.safetensors", (0.5, 0.5, 0.5)
    network = build_backbone("test_resnet")
    save_backbone(network, backbone, name="test_resnet", image_size=32, patch_size=None, mean=gray, std=gray)
    for part in ("labelled/train", "labelled/val"):
        image_folder(part, classes=("a", "b"), each=6)
    output = tmp_path / "classifier.pt"
    run("fine_tune", backbone, tmp_path / "labelled", "--epochs", "2", "--batch-size", "4", "--output", output)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "validation accuracy" in lines[-1]
    trained, before = torch.load(output, weights_only=True), network.state_dict()
    assert set(trained) - set(before) == {"fc.weight", "fc.bias"}
    assert trained["fc.weight"].shape[0] == 2
    name = "conv1.0.weight" if "conv1.0.weight" in before else next(iter(before))
    moved = (trained[name] - before[name]).abs().mean()
    assert 0 < moved < 0.2 * before[name].abs().mean()  # another start would be further away
