"""The benchmarks against other libraries, as far as they need no other library."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from sslight.config import load_recipe
from sslight.methods import build_method, dino_loss, moco_loss, sinkhorn, swav_loss

REPLICATION = Path(__file__).parents[1] / "benchmarks" / "replication"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the replication by its name."""
    monkeypatch.syspath_prepend(str(REPLICATION))
    return importlib.import_module


def draw(folder: Path, each: int) -> Path:
    """PNGs of 32 px of two classes."""
    for name, color in {"disc": "red", "square": "blue"}.items():
        (folder / name).mkdir(parents=True)
        for i in range(each):
            image = Image.new("RGB", (32, 32), (i, 2 * i, 3 * i))
            pen = ImageDraw.Draw(image)
            (pen.ellipse if name == "disc" else pen.rectangle)((4 + i, 4, 20 + i, 20), fill=color)
            image.save(folder / name / f"{i}.png")
    return folder


@pytest.mark.parametrize("method", ["dino", "swav", "moco"])
def test_sslight_starts_from_the_weights_that_the_other_side_is_given(script: Any, method: str) -> None:
    plan, worker = script("plan"), script("worker")
    runs = {run.name: run for run in plan.read_plan(plan.PLANS / "cifar10.yaml").runs}
    ours, theirs = runs[f"c10-{method}-sslight"], runs[f"c10-{method}-lightly"]
    assert ours.settings == theirs.settings
    assert ours.recipe == theirs.recipe
    torch.manual_seed(0)
    built = next(iter(build_method(load_recipe(ours.recipe, ours.settings)).networks.values())).state_dict()
    given = worker._new_network(theirs, theirs.settings).state_dict()
    assert built.keys() == given.keys()
    assert all(torch.equal(built[key], given[key]) for key in given)


def test_the_network_has_the_stem_for_small_images(script: Any) -> None:
    network = script("networks").resnet18_cifar().eval()
    assert network.conv1.stride == (1, 1)
    assert network.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 512, 4, 4)
    assert sum(p.numel() for p in network.parameters()) == 11_168_832


def test_without_the_other_library_its_run_says_how_to_get_it(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightly", None)
    with pytest.raises(ValueError, match="pip install lightly"):
        script("lightly_side").part("loss")


def test_the_losses_of_both_sides_agree_on_the_same_numbers() -> None:
    losses = pytest.importorskip("lightly.loss", reason="the other library is not installed")
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 2, 8, 32, generator=generator)
    theirs = losses.DINOLoss(output_dim=32)(list(teacher), list(student))
    temperatures = {"student_temp": 0.1, "teacher_temp": 0.04}
    ours = dino_loss(student, teacher, torch.zeros(32), global_pair_weight=None, **temperatures)
    torch.testing.assert_close(ours, theirs)

    scores = 2 * torch.rand(2, 16, 12, generator=generator) - 1
    assignments = torch.stack([sinkhorn(view, epsilon=0.05, num_iterations=3) for view in scores])
    ours = swav_loss(scores, assignments, temperature=0.1, global_pair_weight=None)
    torch.testing.assert_close(ours, losses.SwaVLoss()(list(scores), []).squeeze())

    criterion = losses.NTXentLoss(temperature=0.1, memory_bank_size=(64, 16))
    query, key = torch.nn.functional.normalize(torch.randn(2, 8, 16, generator=generator), dim=2)
    ours = moco_loss(query[None], key, criterion.memory_bank.bank.T.clone(), temperature=0.1, global_pair_weight=None)
    torch.testing.assert_close(ours, criterion(query, key))


def test_split_batch_norm_becomes_plain_again_without_a_change(script: Any) -> None:
    pytest.importorskip("lightly.models", reason="the other library is not installed")
    other, new = script("lightly_side"), script("networks").resnet18_cifar
    network, images = new(), torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    other._split_norms(network)
    network(images)
    split = network.eval()(images)
    torch.testing.assert_close(other._with_plain_norms(network, shapes).eval()(images), split)
    new().load_state_dict(network.state_dict())


def test_starts_are_compared_on_the_images_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(REPLICATION.parent))
    start = importlib.import_module("start")
    monkeypatch.setattr(start, "_BANK", 12)
    monkeypatch.setattr(start, "_QUERIES", 4)
    words = ["start.py", str(draw(tmp_path, 16)), "--backbones", "mobilenetv2_035", "--seeds", "1"]
    monkeypatch.setattr(sys, "argv", words)
    start.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "mobilenetv2_035, standard",
        "mobilenetv2_035, smooth",
    ]
    standard, smooth = (float(line.split("|")[4].split("(")[0]) for line in lines[2:])
    assert -1 <= standard < smooth <= 1
