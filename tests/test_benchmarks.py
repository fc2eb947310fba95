"""The benchmarks against other libraries, as far as they need no other library."""

import importlib
import json
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
def cifar10(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(REPLICATION))
    return importlib.import_module("cifar10")


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


def setup(cifar10: Any, tmp_path: Path, **changes: Any) -> Any:
    """Sixteen images, of which eight are used."""
    train, val = tmp_path / "train", tmp_path / "val"
    if not train.exists():
        draw(train, 8), draw(val, 2)
    values = {"images": 8, "queries": None, "epochs": 1, "batch_size": 4, "device": "cpu", "workers": 0}
    return cifar10.Setup(**{"train": str(train), "val": str(val), **values, **changes})


@pytest.mark.parametrize("method", ["dino", "swav", "moco"])
def test_sslight_starts_from_the_weights_that_the_other_side_is_given(cifar10: Any, method: str) -> None:
    changes = {**cifar10.sslight_settings(method, 128), "epochs": 2, "batch_size": 128}
    settings = load_recipe(f"{method}_cnn_baseline", changes)
    torch.manual_seed(3)
    built = next(iter(build_method(settings).networks.values())).state_dict()
    given = cifar10.new_backbone(3).state_dict()
    assert built.keys() == given.keys()
    assert all(torch.equal(built[key], given[key]) for key in given)


def test_the_network_has_the_stem_for_small_images(cifar10: Any) -> None:
    network = cifar10.new_backbone(0).eval()
    assert network.conv1.stride == (1, 1)
    assert network.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 512, 4, 4)
    assert sum(p.numel() for p in network.parameters()) == 11_168_832


def test_a_cell_trains_on_the_images_asked_for_and_is_measured(cifar10: Any, tmp_path: Path) -> None:
    given, folder = setup(cifar10, tmp_path), tmp_path / "out"
    folder.mkdir()
    cifar10.run_cell(cifar10.Cell("moco", "sslight", 0), given, folder)
    cell = json.loads((folder / "moco_sslight_seed0.json").read_text())
    assert cell["steps"] == 2
    assert cell["bank"] == 8
    assert cell["knn"].keys() == {"8"}
    assert cell["images_per_second"] == pytest.approx(8 / cell["seconds"])
    assert len((folder / "images.txt").read_text().split()) == 8


@pytest.mark.slow
def test_a_finished_cell_is_not_run_again(cifar10: Any, tmp_path: Path) -> None:
    given, folder = setup(cifar10, tmp_path), tmp_path / "out"
    page = cifar10.run_all(cifar10.cells([], [], [0]), given, folder)
    before = (folder / "untrained_seed0.json").stat().st_mtime_ns
    wanted = cifar10.cells(["swav"], ["sslight"], [0])
    longer = cifar10.run_all(wanted, given, folder)
    assert "SwAV | sslight" not in page
    assert "| SwAV | sslight | 1 |" in longer
    assert (folder / "CIFAR10.md").read_text() == longer
    assert (folder / "untrained_seed0.json").stat().st_mtime_ns == before


def test_the_untrained_network_is_measured_with_all_neighbours_there_are(cifar10: Any, tmp_path: Path) -> None:
    given = setup(cifar10, tmp_path)
    (tmp_path / "out").mkdir()
    result = cifar10.run_cell(cifar10.Cell("untrained", "", 0), given, tmp_path / "out")
    assert result["knn"].keys() == {"8"}
    assert result["queries"] == 4
    assert result["files"] == ".png"
    assert 0 <= result["knn"]["8"] <= 100


def test_a_folder_of_another_setup_is_refused(cifar10: Any, tmp_path: Path) -> None:
    given = setup(cifar10, tmp_path)
    (tmp_path / "untrained_seed0.json").write_text(json.dumps({"setup": vars(given)}))
    assert cifar10.finished(tmp_path, given).keys() == {"untrained_seed0"}
    with pytest.raises(ValueError, match="with epochs=1, not 2: give another folder"):
        cifar10.finished(tmp_path, setup(cifar10, tmp_path, epochs=2))


def test_without_the_other_library_the_command_says_how_to_get_it(
    cifar10: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightly", None)
    with pytest.raises(SystemExit, match="pip install lightly"):
        cifar10.main([str(tmp_path), str(tmp_path), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_published_values_stand_apart_from_measured_ones(cifar10: Any, tmp_path: Path) -> None:
    table = importlib.import_module("cifar10_table")

    def result(method: str, side: str, seed: int, accuracy: float) -> dict[str, Any]:
        facts = {"files": ".png", "bank": 8, "queries": 100, "hardware": "a processor", "versions": {"torch": "2"}}
        took = {"seconds": 2.0, "images_per_second": 4.0, "processor_seconds": 3.0} if side else {}
        knn = {"200": accuracy, "20": accuracy}
        given = vars(setup(cifar10, tmp_path))
        return {"method": method, "side": side, "seed": seed, "setup": given, "knn": knn, **facts, **took}

    pairs = [("sslight", 0, 50.0), ("sslight", 1, 52.0), ("lightly", 0, 49.0), ("lightly", 1, 54.0)]
    page = table.to_markdown([result("untrained", "", 0, 20.0), *(result("dino", *pair) for pair in pairs)])
    measured, published = page.split("## Published by others")
    assert "| untrained | either | 1 | 20.0 | 20.0 |  |  |  |  |" in measured
    assert "| DINO | sslight | 2 | 51.0 (50.0 to 52.0) |" in measured
    assert "| -0.5 (-2.0 to +1.0) |" in measured
    assert not any(f"{row[5]:g}" in measured for row in table.PUBLISHED)
    assert "| LightlySSL | DINO | kNN, k = 200 | 200 | 128 | 84 | 120.3 | 1 RTX A6000 |" in published


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


def test_split_batch_norm_becomes_plain_again_without_a_change(cifar10: Any) -> None:
    pytest.importorskip("lightly.models", reason="the other library is not installed")
    other = importlib.import_module("cifar10_lightly")
    network, images = cifar10.new_backbone(0), torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    other._split_norms(network)
    network(images)
    split = network.eval()(images)
    torch.testing.assert_close(other._with_plain_norms(network, shapes).eval()(images), split)
    cifar10.new_backbone(1).load_state_dict(network.state_dict())


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
