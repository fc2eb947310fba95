"""The benchmarks against other libraries, as far as they need no other library."""

import importlib
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from sslight.backbones import build_backbone
from sslight.config import load_recipe
from sslight.data import CropBatch
from sslight.finetuning.classifier import Classifier
from sslight.finetuning.selection import SelectedClassifier
from sslight.finetuning.task import mean_cross_entropy
from sslight.methods import build_method, dino_loss, moco_loss, sinkhorn, swav_loss
from sslight.optim import classification_groups, set_rates
from tests.api.fine_tuned import draw_stripes

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


@pytest.fixture
def defaults(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that compares ways to fine-tune."""
    monkeypatch.syspath_prepend(str(REPLICATION.parent))
    return importlib.import_module("finetune_defaults")


def fine_tuning_task(way: Any) -> tuple[Any, Any]:
    """The task of a way for four black and white images in two steps an epoch, 50 epochs; and its optimizer."""
    torch.manual_seed(0)
    classifier = Classifier(build_backbone("test_resnet"), 2)
    optimizer = torch.optim.AdamW(classification_groups(classifier.backbone, classifier.head), lr=0.0)
    task = way.build(
        SelectedClassifier(classifier, scored=False),
        SimpleNamespace(steps_per_epoch=2),
        SimpleNamespace(device=torch.device("cpu"), world_size=1),
        targets=torch.tensor([0, 1, 0, 1]),
        criterion=mean_cross_entropy,
        optimizer=optimizer,
        set_rate=lambda step: set_rates(optimizer, lr=1.0 - step / 100, weight_decay=0.0),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        epochs=50,
        batch_size=2,
    )
    return task, optimizer


def rates(task: Any, optimizer: Any, step: int) -> list[float]:
    """Of the stem, the last stage and the new layer, in a step."""
    task.set_rates(step)
    backbone = task.module.classifier.backbone
    wanted = (backbone.conv1[0].weight, next(backbone.layer4.parameters()), task.module.classifier.head[0].weight)
    lr = {parameter: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert len(lr) == len(list(task.module.parameters()))
    return [lr[parameter] for parameter in wanted]


def test_layer_wise_rates_fall_from_the_new_layer_to_the_stem(defaults: Any) -> None:
    found = rates(*fine_tuning_task(defaults.WAYS["layer-wise rates, 0.75 a stage"]), 0)
    assert found == pytest.approx([0.75**5, 0.75, 1.0])


def test_with_the_head_first_the_others_wait_and_then_have_the_whole_schedule(defaults: Any) -> None:
    task, optimizer = fine_tuning_task(defaults.WAYS["head first, a fifth, at 10 lr"])
    assert rates(task, optimizer, 19) == pytest.approx([0.0, 0.0, 9.5])
    assert rates(task, optimizer, 20) == pytest.approx([1.0, 1.0, 1.0])
    assert rates(task, optimizer, 60) == pytest.approx([0.5, 0.5, 0.5])
    assert rates(task, optimizer, 99) == pytest.approx([0.02] * 3)


def test_mixup_takes_images_and_loss_by_the_same_share(defaults: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task, _ = fine_tuning_task(defaults.WAYS["mixup 0.2"])
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self: torch.tensor(0.8))
    images = torch.stack([torch.zeros(3, 32, 32), torch.full((3, 32, 32), 255.0)]).to(torch.uint8)
    seen = []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.append(x[:, 0, 0, 0])
        return torch.tensor([[2.0, 0.0], [2.0, 0.0]])

    loss = task.loss(network, CropBatch(images, torch.tensor([0, 1])), 0).loss
    torch.testing.assert_close(seen[0], torch.tensor([2 * 51 / 255 - 1, 2 * 204 / 255 - 1]))
    right, wrong = (torch.log(1 + torch.exp(torch.tensor(x))) for x in (-2.0, 2.0))
    torch.testing.assert_close(loss, (right + wrong) / 2)
    two = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    loss = task.loss(lambda x: two, CropBatch(images, torch.tensor([0, 1])), 0).loss
    torch.testing.assert_close(loss, 0.8 * right + 0.2 * wrong)


def test_ways_to_fine_tune_are_compared_on_images_that_have_no_label(
    defaults: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train, output = draw_stripes(tmp_path / "train", each=24, seed=0), tmp_path / "out"
    words = [str(train), "timm:test_resnet", "--init", "random", "--image-size", "32", "--epochs", "1", "--draws", "2"]
    words += ["--labels-per-class", "14", "--judged-per-class", "8", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["finetune_defaults.py", *words, "--ways", "RandAugment 2, 9"])
    defaults.main()
    lines = capsys.readouterr().out.strip().splitlines()[-4:]
    assert lines[0] == "| | draws | mean | to the default |"
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["default", "RandAugment 2, 9"]
    assert re.search(r"\| [+-][\d.]+ \[[+-][\d.]+, [+-][\d.]+\] \|$", lines[3])
    names = [{path.name for path in (output / folder).rglob("l*/*.png")} for folder in ("judged", "draw-0", "draw-1")]
    assert [len(each) for each in names] == [8, 14, 14]
    assert names[0].isdisjoint(names[1] | names[2])
    assert names[1] != names[2]
    row = json.loads((output / "RandAugment-2--9-1.json").read_text(encoding="utf-8"))
    assert len(row["right"]) == 16
    defaults.main()  # all is done
    assert "draw 0:" not in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["finetune_defaults.py", *words, "--epochs", "2"])
    with pytest.raises(ValueError, match=r"holds results of other arguments \(asked.json\)"):
        defaults.main()
