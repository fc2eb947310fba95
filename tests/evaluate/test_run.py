"""Whole evaluations: what they write, what they refuse, and that the numbers are those of a loop by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import sslight
from sslight.api.pretrain import run_pretraining
from sslight.backbones.class_tokens import LastBlocks
from sslight.config import PretrainSettings
from sslight.data import build_source, decode
from sslight.evaluate import EvaluationResult, knn_classify
from sslight.evaluate.classifiers.metrics import hits, label_answers
from sslight.evaluate.model import load_model
from sslight.evaluate.protocols.semi import default_batch_size
from sslight.evaluate.results import read_ranks
from sslight.intervals import wilson_interval
from sslight.train import TrainingStopped
from sslight.views import center_view, normalize

TIMM_AT_32 = {"input_size": (3, 32, 32), "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
SETS = {"data.train": "synthetic:60", "data.val": "synthetic:30:val"}


def evaluate(protocol: str, checkpoint: str, tmp_path: Path, **changes: Any) -> EvaluationResult:
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    cache = {} if protocol == "semi" else {"cache": tmp_path / "cache"}
    defaults = {"output": tmp_path / "result", "image_size": 32, "devices": "cpu"}
    result = sslight.evaluate_backbone(protocol, checkpoint, {**SETS, **cache, **defaults, **dotted})
    assert result is not None
    return result


def test_knn_is_that_of_features_computed_one_by_one(tmp_path: Path) -> None:
    result = evaluate("knn", "timm:test_resnet", tmp_path, knn__k=[1, 5], feature_batch_size=7)
    model = load_model("timm:test_resnet", network="student", seed=0)

    def features(path: str) -> torch.Tensor:
        source = build_source([path], labeled=True)
        views = [center_view(decode(source.read(i)), 32) for i in range(len(source))]
        with torch.no_grad():
            return torch.cat([model.backbone(normalize(v[None, None], model.info.mean, model.info.std)) for v in views])

    labels, wanted = torch.arange(60) % 10, torch.arange(30) % 10
    for k in (1, 5):
        scores = knn_classify(
            features("synthetic:60"), labels, features("synthetic:30:val"), k=k, temperature=0.07, num_classes=10
        )
        right = int((scores.argmax(1) == wanted).sum())
        assert result.by_k[k].top1 == pytest.approx(100 * right / 30)
        assert result.by_k[k].top1_interval == wilson_interval(right, 30)


def test_the_result_file_says_what_how_on_what_and_when(tmp_path: Path) -> None:
    result = evaluate("knn", "timm:test_resnet", tmp_path, knn__k=[1, 10, 30], data__subset=0.5)
    content = json.loads((tmp_path / "result" / "results.json").read_text(encoding="utf-8"))
    assert content == result.content
    assert content["protocol"] == "knn"
    assert content["details"] == {"k": 10}
    assert content["accuracy"] == content["by_k"]["10"]
    assert content["accuracy"]["num_images"] == 30
    assert content["settings"]["knn"] == {"k": [1, 10, 30], "temperature": 0.07}
    assert "linear" not in content["settings"]
    assert content["data"]["train"]["num_images"] == 30
    assert len(content["checkpoint"]["weights_sha256"]) == len(content["data"]["val"]["sha256"]) == 64
    assert sum(each["images"] for each in content["per_class"].values()) == 30
    assert len(content["confusions"]) <= 10
    for each in content["confusions"]:
        assert each["class"] != each["taken_for"]
        assert {each["class"], each["taken_for"]} <= set(result.accuracy.per_class)
        assert each["images"] <= content["per_class"][each["class"]]["images"]
    assert content["versions"]["torch"] == torch.__version__.split("+")[0]
    assert content["seconds"] >= 0
    names = (tmp_path / "result" / "train_subset.txt").read_text(encoding="utf-8").split()
    assert len(names) == 30
    again = evaluate(
        "knn",
        "timm:test_resnet",
        tmp_path,
        knn__k=[1, 10, 30],
        data__subset=str(tmp_path / "result" / "train_subset.txt"),
        output=tmp_path / "again",
    )
    assert again.accuracy == result.accuracy


def test_a_second_protocol_runs_no_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate("knn", "timm:test_resnet", tmp_path, knn__k=[1])
    monkeypatch.setattr("sslight.evaluate.features.cache.feature_batches", lambda *args, **more: pytest.fail("it ran"))
    result = evaluate("linear", "timm:test_resnet", tmp_path, linear__mode="fast", output=tmp_path / "fast")
    assert result.protocol == "linear (fast)"


def test_the_exact_protocol_chooses_its_rate_on_training_images_only(tmp_path: Path) -> None:
    changes = {"linear__epochs": 3, "linear__lr": [0.05, 0.5, 5.0], "linear__batch_size": 16}
    result = evaluate("linear", "timm:test_resnet", tmp_path, **changes)
    details = result.content["details"]
    assert details["optimizer"] == "lars"
    assert details["lr_tried"] == [0.05, 0.5, 5.0]
    best = max(range(3), key=lambda i: details["held_out_accuracy"][i])
    assert details["lr"] == details["lr_tried"][best]
    other = evaluate(
        "linear", "timm:test_resnet", tmp_path, **changes, output=tmp_path / "other", data__val="synthetic:10:val"
    )
    assert other.content["details"]["held_out_accuracy"] == details["held_out_accuracy"]
    alone = evaluate(
        "linear", "timm:test_resnet", tmp_path, **changes | {"linear__lr": details["lr"]}, output=tmp_path / "alone"
    )
    assert alone.content["details"]["held_out_accuracy"] == []
    states = [safetensors.torch.load_file(r.path.parent / "classifier.safetensors") for r in (result, alone)]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value)


ONE_RATE = {"linear__mode": "trained", "linear__lr": 0.05}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"linear__mode": "published"}, "published"),
        (ONE_RATE, "published"),
        ({}, "trained"),
        (ONE_RATE | {"linear__epochs": 1}, "trained"),
        (ONE_RATE | {"linear__batch_size": 8}, "trained"),
        (ONE_RATE | {"linear__optimizer": "sgd"}, "trained"),
        ({"linear__mode": "published", "data__subset": 0.5}, "trained"),
        ({"linear__mode": "published", "image_size": 40}, "trained"),
        ({"linear__mode": "published", "precision": "bf16"}, "trained"),
    ],
)
def test_only_what_is_as_published_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], name: str
) -> None:
    monkeypatch.setattr("sslight.evaluate.protocols.linear._train_probes", lambda *_: 0)
    monkeypatch.setattr("sslight.evaluate.model.timm_config", lambda _: TIMM_AT_32)
    sets = {"data__train": "synthetic:20", "data__val": "synthetic:4:val"}
    result = evaluate("linear", "timm:test_resnet", tmp_path, **{"image_size": None, **sets, **changes})
    assert result.protocol == f"linear ({name})"
    details = result.content["details"]
    assert details["epochs"] == changes.get("linear__epochs", 100)
    assert len(details["lr_tried"]) == (1 if "linear__mode" in changes else 8)


@pytest.mark.parametrize(("setting", "value"), [("epochs", 30), ("lr", 0.1), ("batch_size", 8)])
def test_settings_that_the_published_protocol_fixes_are_refused_with_it(setting: str, value: float) -> None:
    changes = {"linear.mode": "published", f"linear.{setting}": value}
    with pytest.raises(ValueError, match=r"would have no effect: linear.mode=published has it as published; use"):
        sslight.evaluate_backbone("linear", "timm:test_resnet", {**SETS, **changes})


def test_every_rank_is_kept_with_the_names_of_the_images(tmp_path: Path, image_folder: Callable[..., Path]) -> None:
    images = image_folder("images", ("a", "b", "c"), each=4)
    sets = {"data__train": str(images), "data__val": str(images)}
    result = evaluate("knn", "timm:test_resnet", tmp_path, knn__k=[3], data__max_bad_share=0.5, **sets)
    first = read_ranks(tmp_path / "result")
    assert first is not None
    names, ranks = first
    assert ranks.shape == (12, 2)
    assert ranks.dtype == torch.int16
    assert 100 * float(hits(ranks).mean()) == pytest.approx(result.accuracy.top1)
    (images / "a" / "001.jpg").write_bytes(b"no picture")
    evaluate("knn", "timm:test_resnet", tmp_path, knn__k=[3], data__max_bad_share=0.5, **sets, output=tmp_path / "less")
    second = read_ranks(tmp_path / "less")
    assert second is not None
    assert len(second[1]) == 11
    assert second[0] != names


def test_the_head_computes_in_float32_where_ranks_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def answers(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(scores)
        return label_answers(scores, labels)

    monkeypatch.setattr("sslight.evaluate.protocols.semi.label_answers", answers)
    evaluate("semi", "timm:test_resnet", tmp_path, semi__epochs=1, precision="bf16")
    scores = torch.cat(seen)
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())


def test_vits_are_classified_by_the_class_tokens_of_four_blocks_with_sgd(tmp_path: Path) -> None:
    result = evaluate("linear", "timm:test_vit", tmp_path, image_size=160, linear__epochs=1, linear__last_blocks=3)
    details = result.content["details"]
    assert (details["optimizer"], details["last_blocks"]) == ("sgd", 3)
    model = load_model("timm:test_vit", network="student", seed=0)
    weight = safetensors.torch.load_file(tmp_path / "result" / "classifier.safetensors")["weight"]
    assert weight.shape == (10, LastBlocks(model.backbone, 3).head_hidden_size)


@pytest.mark.parametrize(
    ("images", "epochs", "batch_size"),
    [
        (12_811, 60, 1024),  # 1 % of ImageNet's labels
        (128_116, 30, 1024),
        (2_500, 30, 104),
        (250, 60, 20),
        (100, 30, 16),
        (9, 30, 9),
    ],
)
def test_small_sets_are_fine_tuned_for_enough_steps(images: int, epochs: int, batch_size: int) -> None:
    assert default_batch_size(images, epochs) == batch_size


@pytest.mark.parametrize(("head", "expected"), [("auto", "projection"), ("linear", "linear")])
def test_fine_tuning_takes_the_projection_head_of_a_run_unless_told_otherwise(
    head: str, expected: str, tiny: Callable[..., PretrainSettings], tmp_path: Path
) -> None:
    run_pretraining(tiny())
    checkpoint = str(tmp_path / "run" / "checkpoints" / "last.pt")
    changes = {"data__subset": 0.5, "semi__epochs": 1, "semi__head": head}
    result = evaluate("semi", checkpoint, tmp_path, **changes)
    details = result.content["details"]
    assert (details["head"], details["train_share"], details["batch_size"]) == (expected, 0.5, 16)
    [few] = result.notes
    assert few.startswith("only 1 step(s) of 16 images: too few to finish fine-tuning")
    before = sslight.load_backbone(checkpoint).state_dict()
    after = sslight.load_backbone(tmp_path / "result" / "backbone.safetensors").state_dict()
    assert all(not torch.equal(after[name], value) for name, value in before.items() if value.ndim > 1)
    export = tmp_path / "run" / "backbone.safetensors"
    other = evaluate("semi", str(export), tmp_path, **changes, output=tmp_path / "other")
    assert other.content["details"]["head"] == "linear"
    assert len(other.notes) == 1 + (head == "auto")


def test_a_baseline_is_measured_at_the_size_of_small_images_and_says_so_with_what_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluate("knn", "timm:test_resnet", tmp_path, knn__k=[1], image_size=None)
    said = "the images are small, so they are measured at 64 px, not at the network's 160 (image_size)."
    assert result.notes == [said]
    assert result.content["transform"]["image_size"] == 64
    assert capsys.readouterr().err.splitlines()[:3] == ["data.train: 60 images", "data.val: 30 images", said]


def test_fine_tuning_learns_what_it_is_shown(tmp_path: Path) -> None:
    sets = {"data__train": "synthetic:40", "data__val": "synthetic:40"}
    result = evaluate("semi", "timm:test_resnet", tmp_path, **sets, semi__epochs=25, semi__lr=2.0, semi__batch_size=8)
    assert result.accuracy.top1 > 40  # of 10 classes, four images each


def test_without_output_equal_evaluations_share_a_folder_and_others_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, again, other = (
        evaluate("knn", "timm:test_resnet", tmp_path, output=None, knn__k=[k], workers=0) for k in (1, 1, 2)
    )
    assert first.path == again.path != other.path
    assert first.path.parent.parent == Path("evaluation")


def test_classes_without_images_are_noted(tmp_path: Path) -> None:
    result = evaluate("knn", "timm:test_resnet", tmp_path, knn__k=[1], data__val="synthetic:7:val")
    assert result.notes == ["3 of 10 classes have no image in data.val (first: rows)."]


def test_a_loss_that_is_none_ends_fine_tuning(tmp_path: Path) -> None:
    with pytest.raises(TrainingStopped, match=r"the (loss|gradient) became (nan|inf) at step \d+ .* semi\.lr"):
        evaluate("semi", "timm:test_resnet", tmp_path, semi__epochs=3, semi__lr=1e30)
    assert not (tmp_path / "result" / "results.json").exists()


@pytest.mark.parametrize("protocol", ["knn", "semi"])
def test_an_unreadable_image_is_left_out_counted_and_listed(
    protocol: str, tmp_path: Path, image_folder: Callable[..., Path]
) -> None:
    for name in ("train", "val"):
        image_folder(name, classes=("a", "b"), each=8)
    (tmp_path / "val" / "b" / "003.jpg").write_bytes(b"")
    sets = {"data__train": tmp_path / "train", "data__val": tmp_path / "val"}
    more = {"knn__k": [1]} if protocol == "knn" else {"semi__epochs": 1}
    result = evaluate(protocol, "timm:test_resnet", tmp_path, **sets, **more)
    assert result.accuracy.per_class["b"][1] == 7
    assert result.content["unreadable"] == [{"name": "b/003.jpg", "reason": "the file is empty (0 bytes)"}]
    assert "1 of the 16 images of data.val left out as unreadable." in result.notes
    with pytest.raises(
        ValueError, match=r"1 of the 16 .* data\.val are unreadable, .*=0 allows \(\S+003\.jpg \(the file is"
    ):
        evaluate(protocol, "timm:test_resnet", tmp_path, **sets, **more, output=None, data__max_bad_share=0)


def test_a_set_without_a_readable_image_is_named(tmp_path: Path, image_folder: Callable[..., Path]) -> None:
    for name in ("train", "val"):
        image_folder(name, classes=("a", "b"), each=2)
    for file in (tmp_path / "val").rglob("*.jpg"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no readable image among the 4 tried: .*; check that data\.val points to"):
        evaluate("knn", "timm:test_resnet", tmp_path, data__train=tmp_path / "train", data__val=tmp_path / "val")
