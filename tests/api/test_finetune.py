"""Fine-tuning from labels to a file: that it learns, what it holds out, that it resumes, and what it refuses."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

import sslight
from sslight.api import finetune_run as api
from sslight.api.finetune import _split
from sslight.api.finetune_run import FinetuneResult
from sslight.backbones import build_backbone, further_notes, load_backbone, save_backbone
from sslight.cli.commands.finetune import _kept
from sslight.config import FinetuneSettings, build
from sslight.data import CropLoader, FolderSource
from sslight.evaluate.classifiers.logistic import fit_logistic_regression
from sslight.evaluate.compare import compare_files
from sslight.evaluate.features.extract import EvalTransform, Extraction, extract_features, feature_batches
from sslight.evaluate.model import load_model
from sslight.evaluate.sets import LabeledSets, build_sets, class_notes
from sslight.finetuning.classifier import Classifier
from sslight.finetuning.classifier_file import open_classifier
from sslight.finetuning.selection import SelectedClassifier
from sslight.finetuning.task import class_weights, mean_cross_entropy
from sslight.intervals import standard_error
from sslight.train import TrainingStopped
from tests.api.fine_tuned import TINY, draw_stripes, fine_tuned


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    return fine_tuned(tmp_path_factory.mktemp("stripes"), epochs=12, lr=0.003)


def test_a_classifier_of_two_classes_of_drawn_images_learns(result: FinetuneResult) -> None:
    content = json.loads(result.path.read_text(encoding="utf-8"))
    assert content == result.content
    assert content["accuracy"]["top1"] > 90
    assert content["accuracy"]["num_images"] == 40
    low, high = content["accuracy"]["top1_interval"]
    assert low < content["accuracy"]["top1"] <= high
    assert set(content["per_class"]) == {"lying", "standing"}
    assert np.sum(content["confusion_matrix"]) == 40
    wrong = 40 - np.trace(content["confusion_matrix"])
    assert sum(one["images"] for one in content["confusions"]) == wrong == len(content["worst_images"])
    assert content["details"]["train_images"] == {"lying": 40, "standing": 40}
    assert not (result.output / "checkpoints").exists()


def test_unreadable_training_images_are_told_and_so_is_a_class_that_has_no_other(tmp_path: Path) -> None:
    for name, each in (("train", 40), ("val", 20)):
        draw_stripes(tmp_path / name, each=each, seed=each)
    (tmp_path / "train" / "gone").mkdir()
    for number in range(2):
        (tmp_path / "train" / "gone" / f"{number}.png").touch()
    notes = fine_tuned(tmp_path, epochs=2, holdout=0).content["notes"]
    assert "2 of the 82 images of the training part of data.train left out as unreadable." in notes
    assert "classes without a readable training image, which were not learned: gone." in notes


def test_the_file_says_all_that_a_device_needs_and_timm_loads_it(result: FinetuneResult) -> None:
    file = open_classifier(result.classifier)
    assert (file.classes, file.resize, file.info.image_size) == (("lying", "standing"), 32, 32)
    model = timm.create_model("test_resnet", num_classes=2, checkpoint_path=str(result.classifier)).eval()
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x), file.classifier(x))
        torch.testing.assert_close(
            load_backbone(result.output / "backbone.safetensors")(x), file.classifier.backbone(x)
        )


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fine_tuned(tmp_path)
    taken = list[Tensor]()

    def stop_in_the_third_epoch(logits: Tensor, labels: Tensor, **more: Any) -> Tensor:
        taken.append(labels)
        if len(taken) == 11:
            raise TrainingStopped("the power went")
        return mean_cross_entropy(logits, labels, **more)

    with monkeypatch.context() as patched:
        patched.setattr(api, "mean_cross_entropy", stop_in_the_third_epoch)
        with pytest.raises(TrainingStopped):
            fine_tuned(tmp_path, output=tmp_path / "again", checkpoint={"every_steps": 7})
    with pytest.raises(ValueError, match=r"last\.pt is a checkpoint of a run with labels: let it end"):
        sslight.embed("synthetic:2", tmp_path / "again")
    again = fine_tuned(tmp_path, output=tmp_path / "again", checkpoint={"every_steps": 7})
    assert again.classifier.read_bytes() == whole.classifier.read_bytes()
    assert again.content["details"] == whole.content["details"]
    assert again.content["confusion_matrix"] == whole.content["confusion_matrix"]
    with pytest.raises(ValueError, match=r"already holds results\.json: choose another folder"):
        fine_tuned(tmp_path, output=tmp_path / "again")


def test_an_epoch_that_is_not_the_best_is_told_with_the_best() -> None:
    details = {"chosen_epoch": 4, "holdout_top1": 41.7, "num_held_out": 12, "best_holdout_top1": 50.0}
    what = "4, by 12 held-out images (41.7 % right; within one standard error of the best, 50.0 %)"
    assert _kept(details) == what
    assert _kept(details | {"best_holdout_top1": 41.7}) == "4, by 12 held-out images (41.7 % right)"
    first = {"chosen_epoch": 0, "best_holdout_top1": 41.7, "head_init": "regression"}
    assert _kept(details | first).startswith("0 (logistic regression, before the first step), by 12 held-out images (")


def noted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """The scores on held-out images and their standard errors, as they come."""
    found, honest = list[tuple[float, float]](), SelectedClassifier.note

    def note(self: SelectedClassifier, score: float, standard_error: float) -> None:
        found.append((score, standard_error))
        honest(self, score, standard_error)

    monkeypatch.setattr(SelectedClassifier, "note", note)
    return found


def test_norms_see_whole_batches_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images left over at the end of every epoch, just before it is measured, cost a classifier four points."""
    seen = list[int]()

    def watched(logits: Tensor, labels: Tensor, **more: Any) -> Tensor:
        seen.append(len(labels))
        return mean_cross_entropy(logits, labels, **more)

    monkeypatch.setattr(api, "mean_cross_entropy", watched)
    result = fine_tuned(tmp_path, batch_size=14)  # of 72 images
    assert seen == [14] * 20
    assert result.content["details"]["steps"] == 20


def test_what_chooses_the_epoch_is_of_the_training_set_and_never_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: set[str] = set()
    scored: set[str] = set()
    loader, batches, scoring = CropLoader, feature_batches, [False]

    def watched_loader(source: Any, **settings: Any) -> Any:
        trained.update(source.locate(index) for index in range(len(source)))
        return loader(source, **settings)

    def watched_batches(classifier: Any, source: Any, *args: Any, **settings: Any) -> Any:
        if scoring[0]:
            scored.update(source.locate(index) for index in range(len(source)))
        return batches(classifier, source, *args, **settings)

    honest = api.Finetuning._score

    def score(self: Any, module: Any) -> Any:
        scoring[0] = True
        found = honest(self, module)
        scoring[0] = False
        return found

    monkeypatch.setattr(api, "CropLoader", watched_loader)
    monkeypatch.setattr(api, "feature_batches", watched_batches)
    monkeypatch.setattr(api.Finetuning, "_score", score)
    scores = noted(monkeypatch)
    fine_tuned(tmp_path, epochs=1, holdout=0.25)
    assert [error for _, error in scores] == [standard_error(score * 20 / 100, 20) for score, _ in scores] != []
    assert len(scored) == 20
    assert len(trained) == 60
    assert not scored & trained
    assert {Path(place).parts[-3] for place in scored | trained} == {"train"}


def test_later_weights_are_kept_unless_earlier_ones_were_better_by_more_than_chance() -> None:
    classifier = Classifier(timm.create_model("test_resnet", num_classes=0), 2)
    module = SelectedClassifier(classifier, scored=True)
    for number, (score, kept) in enumerate(((50.0, 0), (70.0, 1), (66.0, 2), (65.0, 2), (65.5, 4))):
        torch.nn.init.constant_(classifier.head.get_parameter("0.bias"), number)
        module.note(score, standard_error(score, 100))  # of 70 right images 4.6 points
        assert float(module.best.head.state_dict()["0.bias"][0]) == kept == int(module.noted[1])
    assert module.best_score.tolist() == [70.0, pytest.approx(4.56, abs=0.01)]
    assert SelectedClassifier(classifier, scored=False).best is classifier


def start_weights(folder: Path, *, own: bool, init_from: str | None = None) -> str:
    """Weights whose batch norms have seen something, in a file of this program or in a plain one."""
    torch.manual_seed(3)
    backbone = build_backbone("test_resnet", image_size=32)
    backbone.train()(torch.randn(64, 3, 32, 32))
    if own:
        facts: dict[str, Any] = {"name": "test_resnet", "image_size": 32, "patch_size": None}
        facts["notes"] = further_notes(init_from)
        save_backbone(backbone, folder / "own.safetensors", **facts, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        return str(folder / "own.safetensors")
    save_file(backbone.state_dict(), folder / "public.safetensors")
    return f"timm:test_resnet@{folder / 'public.safetensors'}"


@pytest.mark.parametrize("kind", ["own", "public", "further"])
def test_public_weights_are_changed_gently_and_their_norms_keep_what_they_know(kind: str, tmp_path: Path) -> None:
    own = kind == "own"
    start = start_weights(tmp_path, own=kind != "public", init_from="timm:x.y" if kind == "further" else None)
    result = fine_tuned(tmp_path, start, init="weights", holdout=0)
    details = result.content["details"]
    assert (details["lr"], details["freeze_norms"]) == ((0.001, False) if own else (0.0003, True))
    assert details["head_init"] == ("random" if own else "regression")
    config = (result.output / "config.yaml").read_text()
    assert f"\nfreeze_norms: {str(not own).lower()}\n" in config
    before, after = (load_model(path, network="student", seed=0).backbone for path in (start, str(result.output)))
    changed = {name for name, value in before.state_dict().items() if not torch.equal(value, after.state_dict()[name])}
    assert changed >= {name for name, _ in before.named_parameters()}
    statistics = {name for name, _ in before.named_buffers() if name in changed}
    assert bool(statistics) == own


def test_norms_may_be_frozen_or_not_whatever_the_start(tmp_path: Path) -> None:
    found = []
    for own in (True, False):
        changes = {"init": "weights", "freeze_norms": own, "lr": 0.002, "epochs": 1, "output": tmp_path / str(own)}
        content = fine_tuned(tmp_path, start_weights(tmp_path, own=own), **changes).content["details"]
        found.append((content["freeze_norms"], content["lr"]))
    assert found == [(True, 0.002), (False, 0.002)]


def test_norms_that_are_not_there_cannot_be_frozen(tmp_path: Path) -> None:
    half = (0.5, 0.5, 0.5)
    vit = build_backbone("test_vit", image_size=32, patch_size=16)
    save_backbone(vit, tmp_path / "vit.safetensors", name="test_vit", image_size=32, patch_size=16, mean=half, std=half)
    with pytest.raises(ValueError, match=r"freeze_norms=true would have no effect: test_vit has no batch norms; set "):
        fine_tuned(tmp_path, str(tmp_path / "vit.safetensors"), init="weights", freeze_norms=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("balance", [False, True])
def test_the_new_layer_starts_as_logistic_regression_on_images_that_are_trained_on(
    *, balance: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = start_weights(tmp_path, own=True)
    draw_stripes(tmp_path / "train", each=40, seed=0)
    draw_stripes(tmp_path / "val", each=20, seed=1)
    for number in range(12):
        (tmp_path / "train" / "lying" / f"{number:03}.png").unlink()
    still = {"init": "weights", "lr": 1e-12, "weight_decay": 0, "freeze_norms": True, "epochs": 1, "holdout": 0}
    still["head_init"] = "regression"
    whole = fine_tuned(tmp_path, start, balance=balance, **still)
    model = load_model(start, network="student", seed=0)
    source = FolderSource(tmp_path / "train", labeled=True)
    features, _ = extract_features(
        model.backbone, source, EvalTransform(32, model.info.mean, model.info.std, 32), Extraction()
    )
    labels = torch.tensor([0] * 28 + [1] * 40)
    weights = class_weights(labels, 2) if balance else None
    fitted = fit_logistic_regression(features, labels, num_classes=2, weights=weights)
    found = open_classifier(whole.classifier).classifier.head(features)
    torch.testing.assert_close(found, fitted.logits(features), rtol=1e-3, atol=1e-3)
    held_out = fine_tuned(tmp_path, start, **still | {"holdout": 0.25, "output": tmp_path / "second"})
    said = "".join(capsys.readouterr())
    assert "logistic regression: held-out " in said
    assert "fine-tuning on 51 images, 17 held out to choose the epoch; lr 1e-12, batch norms frozen" in said
    page = sslight.report_runs(held_out.output, images=0).page.read_text(encoding="utf-8")
    assert "logistic regression: " in page


def test_a_stopped_run_does_not_fit_its_layer_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = start_weights(tmp_path, own=False)
    changes = {"init": "weights", "checkpoint": {"every_steps": 3}}
    whole = fine_tuned(tmp_path, start, **changes)
    steps = [0]

    def stop(logits: Tensor, labels: Tensor, **more: Any) -> Tensor:
        steps[0] += 1
        if steps[0] == 8:
            raise TrainingStopped("the power went")
        return mean_cross_entropy(logits, labels, **more)

    with monkeypatch.context() as patched:
        patched.setattr(api, "mean_cross_entropy", stop)
        with pytest.raises(TrainingStopped):
            fine_tuned(tmp_path, start, output=tmp_path / "again", **changes)
    monkeypatch.setattr(api, "fit_logistic_regression", None)
    again = fine_tuned(tmp_path, start, output=tmp_path / "again", **changes)
    assert again.classifier.read_bytes() == whole.classifier.read_bytes()


def test_a_stopped_run_of_a_version_without_these_settings_goes_on_as_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = start_weights(tmp_path, own=False)
    before = {"lr": 0.001, "head_init": "random", "freeze_norms": False}
    again: dict[str, Any] = {"output": tmp_path / "again", "checkpoint": {"every_steps": 3}}
    whole = fine_tuned(tmp_path, start, init="weights", **before)
    honest = SelectedClassifier.note

    def stop(module: SelectedClassifier, score: float, error: float) -> None:
        if module.noted[0] == 2:
            raise TrainingStopped("the power went")
        honest(module, score, error)

    with monkeypatch.context() as patched:
        patched.setattr(SelectedClassifier, "note", stop)
        with pytest.raises(TrainingStopped):
            fine_tuned(tmp_path, start, init="weights", **again, **before)
    config = tmp_path / "again" / "config.yaml"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith(("head_init", "freeze_norms"))))
    finished = fine_tuned(tmp_path, start, init="weights", **again)
    assert finished.classifier.read_bytes() == whole.classifier.read_bytes()


def test_unreadable_images_end_a_run_before_its_layer_is_fitted(tmp_path: Path) -> None:
    start = start_weights(tmp_path, own=False)
    draw_stripes(tmp_path / "train", each=40, seed=0)
    draw_stripes(tmp_path / "val", each=20, seed=1)
    for number in range(10):
        (tmp_path / "train" / "lying" / f"{number:03}.png").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"^10 of the 80 images of data\.train are unreadable, more than data\.max_bad"
    ):
        fine_tuned(tmp_path, start, init="weights", holdout=0)


def test_balanced_classes_count_alike_however_many_images_they_have() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    weights = class_weights(labels, 2)
    assert weights.tolist() == pytest.approx([2 / 3, 2.0])
    logits = torch.randn(4, 2)
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    expected = (each[:3].mean() + each[3]) / 2
    torch.testing.assert_close(mean_cross_entropy(logits, labels, weights=weights), expected)
    tags = torch.tensor([[1, 0], [0, 0], [0, 1], [0, 1]])
    assert class_weights(tags, 2).tolist() == [3.0, 1.0]


def table(folder: Path, rows: dict[str, str], heading: str, name: str = "labels.csv") -> str:
    path = folder / name
    path.write_text("\n".join([heading, *(f"{key},{value}" for key, value in rows.items())]) + "\n", encoding="utf-8")
    return str(path)


def test_a_table_of_names_and_labels_serves_both_sets(tmp_path: Path) -> None:
    draw_stripes(tmp_path / "train", each=12, seed=0)
    draw_stripes(tmp_path / "val", each=6, seed=1)
    rows = {str(path): path.parent.name[:5] for path in sorted(tmp_path.rglob("*.png"))}
    labels = table(tmp_path, rows, "file,kind")
    data = {"train": tmp_path / "train", "val": tmp_path / "val", "labels": labels, "val_labels": labels}
    assert set(fine_tuned(tmp_path, data=data, epochs=1).content["per_class"]) == {"lying", "stand"}


def test_columns_of_0_and_1_are_labels_that_do_not_exclude_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = noted(monkeypatch)
    draw_stripes(tmp_path / "train", each=40, seed=0)
    draw_stripes(tmp_path / "val", each=20, seed=1)
    rows = {
        str(path): f"{int(path.parent.name == 'lying')},{int(path.parent.name == 'standing')},1,{int(path.stem) % 2}"
        for path in sorted(tmp_path.rglob("*.png"))
    }
    labels = table(tmp_path, rows, "file,lying,standing,striped,odd")
    data = {"train": tmp_path / "train", "val": tmp_path / "val", "labels": labels, "val_labels": labels}
    result = fine_tuned(tmp_path, data=data, epochs=12, lr=0.003)
    assert "; 4 labels, several an image" in " ".join("".join(capsys.readouterr()).split())
    assert min(result.content["per_class"][name]["accuracy"] for name in ("lying", "standing")) > 90
    low, high = result.content["accuracy"]["map_interval"]
    assert low <= result.content["accuracy"]["map"] <= high
    assert result.content["per_class"]["striped"] == {"accuracy": 100.0, "images": 40}
    assert open_classifier(result.classifier).multi_label
    settings = {"data.check": str(tmp_path / "val"), "format": "timm", "runs": 3}
    (file,) = sslight.export_backbone(result.output, settings).files
    card = (file.path / "README.md").read_text(encoding="utf-8")
    assert "| finetune (multi-label) | val | 32 | 40 | mAP " in card
    assert "| chosen_epoch | " in card
    found = sslight.predict(tmp_path / "val", result.output)
    assert all("striped" in labels.split(";") for labels in found.labels)
    assert len(scores) == 1 + 12  # and before the first epoch
    assert all(0.5 < error < 20 for _, error in scores), scores
    (row,) = compare_files([[result.output]]).multi_label
    assert row.map == result.content["accuracy"]["map"]
    assert row.weights == f"{result.output} (from timm:test_resnet)"
    page = sslight.report_runs(result.output).page.read_text(encoding="utf-8")
    assert "mean average precision [%], 95 % interval" in page
    assert "mean average precision on data.val" in page
    worst = result.content["worst_images"]
    assert worst[0]["class"] == "odd"  # which the pictures do not show
    assert "striped" not in {one["class"] for one in worst}  # as all are
    assert page.count("<img") == len(worst) == sum(page.count(f"has it{word}<br") for word in ("", " not"))
    (listed,) = sslight.report_runs(tmp_path, images=0, output=tmp_path / "all.html").content["runs"]
    assert listed["evaluations"] == [{"protocol": "finetune (multi-label)", "map": row.map, "interval": (low, high)}]


def test_lists_of_labels_are_trained_and_unreadable_images_are_left_out_of_what_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_stripes(tmp_path / "train", each=12, seed=0)
    draw_stripes(tmp_path / "val", each=6, seed=1)
    rows = {str(path): f"{path.parent.name};striped" for path in sorted(tmp_path.rglob("*.png"))}
    labels = table(tmp_path, rows, "file,kinds")
    data = {"train": tmp_path / "train", "val": tmp_path / "val", "labels": labels, "val_labels": labels}
    (tmp_path / "val" / "lying" / "002.png").write_bytes(b"")
    settings = build(FinetuneSettings, {"data": data | {"multi_label": True}, "holdout": 0.25}, model="x")
    _, held_out = _split(build_sets(settings), settings)
    held = FolderSource(tmp_path / "train", labeled=False).locate(int(held_out[0]))
    Path(held).write_bytes(b"")
    result = fine_tuned(tmp_path, data=data | {"multi_label": True}, epochs=1, holdout=0.25)
    notes = [
        "1 of the 6 images of the held-out part of data.train left out as unreadable.",
        "1 of the 12 images of data.val left out as unreadable.",
    ]
    assert result.content["notes"] == notes
    said = " ".join(capsys.readouterr().err.split())
    assert all(f"; {note.removesuffix('.')}" in said for note in notes)
    assert result.content["accuracy"]["num_images"] == 11
    assert result.content["details"]["unreadable_val"] == 1
    assert [image["name"] for image in result.content["unreadable"]] == ["lying/002.png"]
    assert open_classifier(result.classifier).classes == ("lying", "standing", "striped")
    assert open_classifier(result.classifier).multi_label


def test_a_stopped_run_of_several_labels_does_not_go_on_with_others(tmp_path: Path) -> None:
    draw_stripes(tmp_path / "train", each=8, seed=0)
    draw_stripes(tmp_path / "val", each=4, seed=1)
    names = sorted(map(str, tmp_path.rglob("*.png")))
    rows = {name: "1,0" if "lying" in name else "0,1" for name in names}
    labels = table(tmp_path, rows, "file,lying,standing")
    data = {"train": tmp_path / "train", "val": tmp_path / "val", "labels": labels, "val_labels": labels}

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(api.Finetuning, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            fine_tuned(tmp_path, data=data, epochs=1, batch_size=4)
    table(tmp_path, rows, "file,standing,lying")
    with pytest.raises(ValueError, match="labels"):
        fine_tuned(tmp_path, data=data, epochs=1, batch_size=4, resume=True)


def test_a_label_of_one_image_is_trained_and_labels_without_images_are_noted(tmp_path: Path) -> None:
    draw_stripes(tmp_path / "train", each=8, seed=0)
    source = FolderSource(tmp_path / "train", labeled=False)
    tags = np.zeros((16, 3), np.int64)
    tags[:, 0], tags[5, 1] = 1, 1
    classes = ("all", "rare", "none")
    sets = LabeledSets(classes, source, tags, source, tags, 1.0, notes=class_notes(classes, tags, tags))
    assert sets.notes[0] == "1 of 3 classes have no image in data.train (first: none)."
    for seed in range(30):
        settings = build(FinetuneSettings, {"holdout": 0.25, "seed": seed}, model="x")
        trained, held_out = _split(sets, settings)
        assert 5 in trained
        assert sorted([*trained, *held_out]) == list(range(16))


def test_a_run_from_new_weights_does_not_bear_the_name_of_others(result: FinetuneResult) -> None:
    assert result.content["checkpoint"]["path"] == "timm:test_resnet"


@pytest.mark.parametrize("gone", [False, True])
def test_the_page_of_a_run_shows_its_matrix_and_pictures_of_its_worst_images(
    gone: bool, result: FinetuneResult, tmp_path: Path
) -> None:
    content = json.loads(result.path.read_text(encoding="utf-8"))
    one = {"class": "lying", "taken_for": "standing", "probability": 0.1, "its_probability": 0.9}
    content["worst_images"] = [one | {"name": f"lying/{name}.png"} for name in ("007", "none")]
    content["confusion_matrix"] = [[17, 3], [0, 20]]
    if gone:
        content["settings"]["data"]["val"] = [str(tmp_path / "gone")]
    run = tmp_path / "run"
    run.mkdir()
    for file in result.output.iterdir():
        if file.is_file():
            (run / file.name).write_bytes(file.read_bytes())
    (run / "results.json").write_text(json.dumps(content), encoding="utf-8")
    report = sslight.report_runs(run)
    page = report.page.read_text(encoding="utf-8")
    assert "<b>standing</b> 90\N{NO-BREAK SPACE}%<br />right: lying 10\N{NO-BREAK SPACE}%" in page
    assert "<title>lying taken for standing: 3 of 20</title>" in page
    assert 'fill-opacity="0.22"' in page  # 0.12 + 0.68 * 3 / 20
    assert (page.count("<img"), page.count("lying/<wbr />007.png")) == (0 if gone else 1, 1)
    said = "no pictures of the worst images: data.val" if gone else "1 of its 2 worst images are not in data.val any"
    assert any(said in note for note in report.content["notes"])
    top1, (low, high) = (content["accuracy"][key] for key in ("top1", "top1_interval"))
    card = page[page.index("top-1 on data.val") : page.index("held-out top-1")]
    assert f">{top1:.1f} %<" in card
    assert f"95 % interval {low:.1f}–{high:.1f}" in card
    assert sslight.report_runs(run, images=0).page.read_text(encoding="utf-8").count("<img") == 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"output": None}, "output is not set: give a folder for this run"),
        ({"init": "weights"}, "model=timm:test_resnet is a network without weights: add init=random"),
        ({"data": {"val": "{tmp}/val"}}, "data.train is not set: give labeled images"),
        ({"data": {"train": "{tmp}/flat", "val": "{tmp}/val"}}, "flat has 4 of 4 images outside any sub-folder"),
        ({"data": {"train": "{tmp}/train", "val": "{tmp}/other"}}, "not among the 2 training classes (first: c)"),
        (
            {"data": {"train": "{tmp}/one", "val": "{tmp}/val"}},
            "has all images in one sub-folder (a), so it has no labels",
        ),
        (
            {"data": {"train": "{tmp}/train", "val": "{tmp}/val", "labels": "{tmp}/few.csv"}},
            "has no label for 7 of the 8 images of data.train (first: a/001.jpg)",
        ),
        (
            {"data": {"train": "{tmp}/train", "val": "{tmp}/val", "labels": "{tmp}/tags.csv"}},
            "data.val_labels is not set: data.labels gives several labels an image, and data.val needs a table too",
        ),
        (
            {"data": {"train": "{tmp}/train", "val": "{tmp}/bad"}, "holdout": 0, "batch_size": 4},
            "4 of the 8 images of data.val are unreadable, more than data.max_bad_share=0.01 allows ({tmp}/bad/a/000",
        ),
        (
            {"data": {"train": "{tmp}/single", "val": "{tmp}/val"}, "batch_size": 2},
            "holdout=0.1: all 2 images of data.train are needed for their classes; set holdout=0",
        ),
        ({"holdout": 0.01}, "holdout=0.01 of the 8 images of data.train is no image: raise it, or set holdout=0"),
        (
            {"batch_size": 9, "holdout": 0},
            "batch_size=9 is more than the 8 training images: set batch_size=8",
        ),
        ({"resize": 16}, "resize=16 is smaller than the image size 32"),
        ({"network": "teacher"}, "network=teacher would have no effect"),
        ({"freeze_norms": True}, "freeze_norms=true keeps the statistics of batch norms, but init=random has none yet"),
    ],
)
def test_a_wrong_input_is_refused_and_nothing_is_written(
    changes: dict[str, Any], sentence: str, tmp_path: Path, image_folder: Callable[..., Path]
) -> None:
    for name, classes in (("train", ("a", "b")), ("val", ("a", "b")), ("other", ("a", "c")), ("one", ("a",))):
        image_folder(name, classes=classes, each=4)
    image_folder("single", classes=("a", "b"), each=1)
    image_folder("flat", each=4)
    for file in image_folder("bad", classes=("a", "b"), each=4).glob("a/*"):
        file.write_bytes(b"")
    table(tmp_path, {"a/000.jpg": "x"}, "name,label", "few.csv")
    table(tmp_path, {"a/000.jpg": "0,1"}, "name,x,y", "tags.csv")
    data = {"train": "{tmp}/train", "val": "{tmp}/val"}
    settings = {"data": data, "output": "{tmp}/run", **TINY, **changes}
    settings = json.loads(json.dumps(settings).replace("{tmp}", str(tmp_path)))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=re.escape(sentence.replace("{tmp}", str(tmp_path)))):
        sslight.finetune("timm:test_resnet", settings)
    assert sorted(tmp_path.rglob("*")) == before
