"""The loop as a user meets it: whole runs of a few steps on the CPU."""

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import sslight
from sslight.api.pretrain import PretrainResult, run_pretraining
from sslight.backbones import build_backbone, read_backbone_info, save_backbone, slow_precision
from sslight.backbones.cpu import layers as cpu_layers
from sslight.config import PretrainSettings, load_recipe, recipe_names
from sslight.data import SyntheticSource, pack
from sslight.methods import build_method
from sslight.pretraining import task
from sslight.train import TrainingStopped, load_checkpoint, loop
from sslight.train.record import checkpoints
from tests.conftest import TINY, tiny_settings

Settings = Callable[..., PretrainSettings]


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k not in {"images_per_second", "data_wait_share"}} for r in records]


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


SMALL_HEADS: dict[str, dict[str, int]] = {
    "dino": {"dino.head_hidden_dim": 32, "dino.head_bottleneck_dim": 16, "dino.head_output_dim": 64},
    "swav": {
        "swav.head_hidden_dim": 32,
        "swav.num_prototypes": 64,
        "swav.queue_size": 2,
        "swav.queue_start_epoch": 0,
    },
    "moco": {"moco.head_hidden_dim": 32, "moco.queue_size": 8},
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> PretrainResult:
    """The finished run of the tiny settings as they are; not to be changed."""
    return run_pretraining(tiny_settings(output=tmp_path_factory.mktemp("plain") / "run"))


@pytest.mark.parametrize("recipe", [name for name in recipe_names() if name != "quickstart"])
def test_every_recipe_takes_two_steps(recipe: str, tmp_path: Path) -> None:
    changes = {
        "data.train": ["synthetic:8"],
        "output": str(tmp_path / "run"),
        "steps": 2,
        "batch_size": 2,
        "optim.warmup_epochs": 0,
        "optim.min_lr": 0,
        "workers": 0,
        "logger": "none",
        "backbone": "test_vit" if "_vit_" in recipe else "test_resnet",
        **SMALL_HEADS[recipe.split("_")[0]],
    }
    result = run_pretraining(load_recipe(recipe, changes))
    assert result.training.steps == 2
    assert np.isfinite(result.training.metrics["loss"])
    assert sslight.load_backbone(result.backbone)(torch.zeros(1, 3, 64, 64)).shape == (1, result.num_features)


def test_a_run_leaves_the_promised_files(tiny: Settings) -> None:
    settings = tiny(logger="tensorboard", data__val=["synthetic:20:val"], checkpoint__every_epochs=None)
    result = run_pretraining(settings)
    run = result.output
    assert load_recipe(str(run / "config.yaml")) == settings
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0] or environment["packages"]["torch"]
    assert [r["step"] for r in lines(run) if "loss" in r] == [1, 2, 3, 4]
    assert (run / "checkpoints" / "last.pt").is_file()
    assert (run / "bad_images.csv").read_text(encoding="utf-8").splitlines() == ["index,name,reason,count"]
    assert list((run / "tensorboard").glob("events.*"))
    assert result.backbone == run / "backbone.safetensors"
    assert {path.name for path in run.iterdir()} == {
        ".lock",
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "checkpoints",
        "bad_images.csv",
        "tensorboard",
        "backbone.safetensors",
    }


def test_the_exported_backbone_and_the_checkpoint_give_the_students_features(plain: PretrainResult) -> None:
    images = torch.rand(2, 3, 32, 32)
    exported = sslight.load_backbone(plain.backbone)
    student = sslight.load_backbone(plain.output / "checkpoints" / "last.pt")
    assert not exported.training
    assert torch.equal(exported(images), student(images))
    teacher = sslight.load_backbone(plain.output / "checkpoints" / "last.pt", network="teacher")
    assert not torch.equal(exported(images), teacher(images))


MUON: dict[str, Any] = {
    "method": "moco",
    "moco__queue_size": 16,
    "moco__head_hidden_dim": 32,
    "moco__koleo_weight": 0.1,
    "optim__name": "muon",
}


@pytest.mark.parametrize(
    ("workers", "order", "method"), [(0, "global", {}), (1, "global", {}), (1, "blocks", {}), (0, "global", MUON)]
)
def test_resume_in_mid_epoch_repeats_the_uninterrupted_run_bit_for_bit(
    tiny: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, order: str, method: dict[str, Any]
) -> None:
    changes: dict[str, Any] = {
        **method,
        "steps": 6,
        "probe__linear": True,
        "data__val": ["synthetic:20:val"],
        "workers": workers,
    }
    if order == "blocks":
        pack(SyntheticSource(40, size=32), tmp_path / "shards", format="tar", shard_images=5)
        changes |= {"data__train": [str(tmp_path / "shards")], "data__order": "blocks", "data__window": 3}
    whole = tiny(output=str(tmp_path / "whole"), **changes)
    run_pretraining(whole)

    parts = tiny(output=str(tmp_path / "parts"), **changes)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "agreed", lambda flags, fabric, step: [step == 2, False, False])
        with pytest.raises(
            TrainingStopped, match=r"stopped by a signal to another process after step 3 of 6.*resume=true continues"
        ):
            run_pretraining(parts)
    torch.manual_seed(12345)  # whatever the new process happens to start with
    run_pretraining(tiny(output=str(tmp_path / "parts"), resume=True, **changes))

    assert without_times(lines(tmp_path / "whole")) == without_times(lines(tmp_path / "parts"))
    states = [load_checkpoint(tmp_path / name / "checkpoints" / "last.pt") for name in ("whole", "parts")]
    for state in states:
        del state["settings"]
        [state["metrics"]] = without_times([state["metrics"]])
        for own in state["processes"]:
            own["watched"]["records"] = without_times(own["watched"]["records"])
    assert_same(*states)


def test_the_online_probe_learns_and_does_not_touch_the_backbone(tiny: Settings, plain: PretrainResult) -> None:
    beside = run_pretraining(tiny(probe__linear=True))
    a, b = (load_checkpoint(r.output / "checkpoints" / "last.pt")["model"] for r in (plain, beside))
    assert {key for key in b if key not in a} == {"probe.weight", "probe.bias"}
    assert_same(dict(a), {key: b[key] for key in a})


def test_accumulated_parts_give_the_step_of_the_whole_batch(tiny: Settings, tmp_path: Path) -> None:
    # A network without batch norm, whose statistics belong to a part.
    changes: dict[str, Any] = {"backbone": "test_vit", "dino__head_batch_norm": False, "optim__name": "sgd"}
    one = run_pretraining(tiny(output=str(tmp_path / "one"), **changes))
    four = run_pretraining(tiny(output=str(tmp_path / "four"), accumulate=4, **changes))
    a, b = (load_checkpoint(r.output / "checkpoints" / "last.pt")["model"] for r in (one, four))
    start = run_pretraining(
        tiny(output=str(tmp_path / "start"), steps=1, lr=1e-9, optim__min_lr=0, optim__warmup_epochs=0, **changes)
    )
    untouched = load_checkpoint(start.output / "checkpoints" / "last.pt")["model"]
    moved = max(float((a[key] - untouched[key]).abs().max()) for key in a)
    assert moved > 1e-3
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-4, atol=1e-4 * moved, msg=key)


def test_accuracies_come_from_the_bank_and_the_queries(tiny: Settings) -> None:
    result = run_pretraining(tiny(data__train=["synthetic:16"], data__val=["synthetic:20:val"]))
    assert result.protocol == "20 validation images against 16 training images"
    assert [m["step"] for m in result.training.measurements] == [0, 2, 4]
    assert set(result.training.measurements[0]) == {"step", "knn_top1", "knn_images", "linear_top1"}
    assert set(result.training.measurements[1]) == {"step", "knn_top1", "knn_images"}
    assert all(0 <= m["knn_top1"] <= 100 for m in result.training.measurements)


def test_without_a_validation_set_the_accuracy_is_leave_one_out_and_says_so(tiny: Settings) -> None:
    result = run_pretraining(tiny(probe__knn=True))
    assert result.protocol is not None
    assert "leave-one-out on 40 training images" in result.protocol


def test_unlabelled_images_train_with_health_figures_only(tiny: Settings, image_folder: Callable[..., Path]) -> None:
    result = run_pretraining(tiny(data__train=[str(image_folder("flat"))]))
    assert result.training.measurements == []
    assert result.protocol is None
    record = lines(result.output)[-1]
    assert 0 < record["teacher_entropy"] <= 1
    assert 0 <= record["feature_spread"] <= 1
    assert 7 < record["effective_rank"] <= 4 * 7  # of four batches


@pytest.mark.parametrize("method", ["dino", "swav", "moco"])
def test_of_loaded_weights_only_what_is_not_frozen_changes(method: str, plain: PretrainResult, tmp_path: Path) -> None:
    loaded = sslight.load_backbone(plain.backbone)
    before, weights = loaded.state_dict(), {name for name, _ in loaded.named_parameters()}
    rest = {name: value for name, value in TINY.items() if not name.startswith("dino.")} | SMALL_HEADS[method]
    if method == "swav":
        del rest["swav.queue_size"], rest["swav.queue_start_epoch"]

    def changed(after_epoch: int | None = None, **settings: Any) -> set[str]:
        output = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        changes = {"init_from": str(plain.output), "steps": 3, "output": str(output), **settings}
        result = run_pretraining(load_recipe(f"{method}_cnn_sslight_64", rest | changes))
        checkpoint = output / "checkpoints" / f"epoch_{after_epoch or 0:04}.pt"
        after = sslight.load_backbone(checkpoint if after_epoch else result.backbone).state_dict()
        return {name for name, value in before.items() if not torch.equal(value, after[name])}

    statistics = before.keys() - weights
    assert changed(freeze_norms=True) == weights
    frozen = {"freeze_backbone_epochs": 1, "steps": 6, "checkpoint.every_epochs": 1}  # an epoch has 5 steps
    assert changed(after_epoch=1, **frozen) == statistics
    assert changed(after_epoch=1, freeze_norms=True, **frozen) == set()
    assert changed(freeze_norms=True, freeze_backbone_epochs=0.4) == weights  # 2 of 3 steps


def test_norms_that_are_not_there_cannot_be_frozen_but_do_not_stop_a_run_that_goes_on(
    tiny: Settings, tmp_path: Path
) -> None:
    weights = tmp_path / "vit.safetensors"
    half = (0.5, 0.5, 0.5)
    vit = build_backbone("test_vit", image_size=32, patch_size=16)
    save_backbone(vit, weights, name="test_vit", image_size=32, patch_size=16, mean=half, std=half)
    settings = tiny(
        backbone="test_vit", patch_size=16, views__local_size=16, init_from=str(weights), epochs=None, steps=2
    )
    with pytest.raises(ValueError, match="backbone=test_vit has no batch norms; set freeze_norms=false"):
        run_pretraining(settings.model_copy(update={"freeze_norms": True}))
    config = run_pretraining(settings).output / "config.yaml"
    config.write_text(config.read_text().replace("freeze_norms: false", "freeze_norms: true"))
    with pytest.raises(ValueError, match="is complete"):  # and nothing of norms
        run_pretraining(load_recipe(str(config), {"resume": True, "output": str(config.parent)}))


def test_init_from_starts_from_the_weights_only(tiny: Settings, plain: PretrainResult) -> None:
    still: dict[str, Any] = {"lr": 1e-9, "optim__min_lr": 0, "steps": 1, "optim__warmup_epochs": 0}
    second = run_pretraining(tiny(init_from=str(plain.output), seed=7, **still))
    a, b = (sslight.load_backbone(result.backbone).state_dict() for result in (plain, second))
    for key in a:
        if "running" not in key and "num_batches" not in key:
            torch.testing.assert_close(a[key], b[key], rtol=0, atol=1e-6, msg=key)


def test_a_backbone_that_began_with_weights_of_others_says_so(
    tiny: Settings, plain: PretrainResult, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_file(sslight.load_backbone(plain.backbone).state_dict(), foreign)
    told = {"source": "foreign.safetensors, pre-trained further"}
    starts = {"first": (foreign, told), "own": (plain.output, {})}
    starts["second"] = tmp_path / "first", {"source": "first, pre-trained further"}
    checkpoint = plain.output / "checkpoints" / "last.pt"
    starts["of a checkpoint"] = checkpoint, {"source": "last.pt, pre-trained further"}  # which is not looked into
    for name, (start, notes) in starts.items():
        output = tmp_path / name
        result = run_pretraining(tiny(init_from=str(start), steps=2, epochs=None, output=str(output)))
        for path in (result.backbone, output / "checkpoints" / "last.pt"):
            assert read_backbone_info(path).notes == notes


def test_a_non_finite_loss_stops_the_run(tiny: Settings) -> None:
    settings = tiny(optim__name="sgd", lr=1e30, steps=10)
    with pytest.raises(TrainingStopped, match=r"the loss became (nan|inf).*start a new run with a lower lr"):
        run_pretraining(settings)


def test_the_remedies_for_a_non_finite_gradient_are_settings_that_may_cause_it(tiny: Settings, tmp_path: Path) -> None:
    with pytest.raises(TrainingStopped, match=r"start a new run with a lower lr or a lower dino\.koleo_weight\.$"):
        run_pretraining(tiny(dino__koleo_weight=1e30, precision="32"))
    other = {"output": tmp_path / "other", "precision": "bf16"}
    with pytest.raises(TrainingStopped, match=r"start a new run with a lower lr or precision=32\.$"):
        run_pretraining(tiny(optim__name="sgd", lr=1e30, steps=10, **other))


def test_what_is_rarely_meant_is_told_at_the_start(
    tiny: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_pretraining(tiny(method="moco", steps=8, epochs=None, batch_size=4, moco__queue_size=24))
    said = capsys.readouterr().err
    assert "try moco.queue_size=20: with 40 images a queue of 24 keys often holds an older key of an image" in said
    assert "try lr" not in said
    wrong = {"optim__name": "adamw", "lr": 4.0, "optim__min_lr": 0.001, "output": tmp_path / "other"}
    run_pretraining(tiny(method="moco", steps=8, epochs=None, batch_size=4, moco__queue_size=20, **wrong))
    said = capsys.readouterr().err
    assert "try lr=0.06: lr · batch_size / 256 = 0.0625 is above the usual 0.003 for adamw" in said
    assert "moco.queue_size" not in said


def test_weights_that_one_update_broke_are_never_saved(tiny: Settings) -> None:
    # One step an epoch: the loss before the first update is fine, and a checkpoint is due right after it.
    settings = tiny(data__train=["synthetic:8"], optim__name="sgd", lr=1e38, steps=3, optim__warmup_epochs=0)
    with pytest.raises(TrainingStopped, match=r"the weights or buffers became non-finite by step 1"):
        run_pretraining(settings)
    assert settings.output is not None
    assert not (settings.output / "checkpoints" / "last.pt").exists()


def poisoned(*calls: int) -> tuple[Callable[..., Any], list[list[int]]]:
    """``normalized`` that makes the batches of certain calls, counted from 1, not a number; and the calls' images."""
    real, shown = task.normalized, list[list[int]]()

    def normalized(batch: Any, settings: PretrainSettings, *, memory: Any) -> Any:
        views = real(batch, settings, memory=memory)
        shown.append(batch.indices.tolist())
        if len(shown) in calls:
            views[0].fill_(float("nan"))
        return views

    return normalized, shown


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_that_is_not_finite_is_skipped_from_the_last_checkpoint(
    tiny: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], workers: int
) -> None:
    normalized, shown = poisoned(8)
    monkeypatch.setattr(task, "normalized", normalized)
    result = run_pretraining(tiny(steps=10, workers=workers, checkpoint__every_steps=3, checkpoint__every_epochs=None))
    [line] = (result.output / "nonfinite.jsonl").read_text(encoding="utf-8").splitlines()
    note = json.loads(line)
    assert (note["action"], note["step"], note["indices"]) == ("skipped", 8, shown[7])
    assert shown[8:] == [shown[6], *shown[9:]]  # step 7 again, and then not the batch of step 8
    assert shown[7] not in shown[8:]
    assert "step 8: back to the checkpoint of step 6" in capfd.readouterr().err
    assert [record["step"] for record in lines(result.output)] == [1, 2, 3, 4, 5, 6, 7, 9, 10]
    state = load_checkpoint(result.output / "checkpoints" / "last.pt")
    assert state["skipped_steps"] == [7]
    assert all(value.isfinite().all() for value in state["model"].values() if torch.is_floating_point(value))


def test_batches_are_skipped_only_so_often(tiny: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "normalized", poisoned(4, 8)[0])
    with pytest.raises(TrainingStopped, match=r"step \d+, after 1 batch\(es\) had been skipped .*init_from="):
        run_pretraining(tiny(steps=10, optim__max_skipped_batches=1, checkpoint__every_steps=2))


def test_the_best_checkpoint_is_kept(tiny: Settings) -> None:
    result = run_pretraining(tiny(data__train=["synthetic:16"], steps=6, data__val=["synthetic:30:val"]))
    trained = [m for m in result.training.measurements if m["step"]]
    best = max(trained, key=lambda m: (m["knn_top1"], -m["step"]))
    assert load_checkpoint(result.output / "checkpoints" / "best.pt")["step"] == best["step"]


def test_a_damaged_last_checkpoint_is_passed_over_and_the_run_ends_the_same(
    tiny: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    run = run_pretraining(tiny(steps=6, checkpoint__every_steps=2)).output
    last = run / "checkpoints" / "last.pt"
    whole, records = load_checkpoint(last), lines(run)
    (run / "backbone.safetensors").unlink()
    last.write_bytes(last.read_bytes()[:-5000])
    run_pretraining(tiny(steps=6, checkpoint__every_steps=2, resume=True))
    assert "last.pt cannot be read" in capfd.readouterr().err
    assert without_times(lines(run)) == without_times(records)
    assert_same(whole["model"], load_checkpoint(last)["model"])
    assert_same(whole["optimizer"], load_checkpoint(last)["optimizer"])


def test_a_run_goes_on_where_a_checkpoint_cannot_be_written(
    tiny: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    real, calls = checkpoints.save_checkpoint, []

    def refusing(path: Path, state: Any, *, keep_last: int) -> None:
        calls.append(state["step"])
        if len(calls) == 2:
            raise OSError(28, "No space left on device", str(path))
        real(path, state, keep_last=keep_last)

    monkeypatch.setattr(checkpoints, "save_checkpoint", refusing)
    result = run_pretraining(tiny(steps=8, checkpoint__every_steps=2))
    assert calls == [2, 4, 5, 6, 8]
    errors = capfd.readouterr().err
    assert "last.pt was not written: No space left on device. The run goes on." in errors
    assert load_checkpoint(result.output / "checkpoints" / "last.pt")["step"] == 8


def test_a_run_whose_last_checkpoint_cannot_be_written_keeps_the_one_before(
    tiny: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = checkpoints.save_checkpoint

    def refusing(path: Path, state: Any, *, keep_last: int) -> None:
        if state["step"] == 8:
            raise OSError(28, "No space left on device", str(path))
        real(path, state, keep_last=keep_last)

    monkeypatch.setattr(checkpoints, "save_checkpoint", refusing)
    settings = tiny(steps=8, checkpoint__every_steps=3)
    with pytest.raises(OSError, match="No space left on device"):
        run_pretraining(settings)
    assert settings.output is not None
    assert load_checkpoint(settings.output / "checkpoints" / "last.pt")["step"] == 6


def test_checkpoints_are_kept_as_asked(tiny: Settings) -> None:
    result = run_pretraining(tiny(data__train=["synthetic:16"], steps=8, checkpoint__every_epochs=2))
    names = sorted(path.name for path in (result.output / "checkpoints").iterdir())
    assert names == ["epoch_0002.pt", "epoch_0004.pt", "last-1.pt", "last.pt"]
    assert load_checkpoint(result.output / "checkpoints" / "epoch_0002.pt")["step"] == 4


def test_global_views_alone_train(tiny: Settings) -> None:
    settings = tiny()
    no_local = settings.views.model_copy(update={"num_local": 0})
    result = run_pretraining(settings.model_copy(update={"views": no_local}))
    assert np.isfinite(result.training.metrics["loss"])


def test_a_run_that_stops_for_too_many_unreadable_images_lists_them(
    tiny: Settings, image_folder: Callable[..., Path]
) -> None:
    folder = image_folder("bad", each=16)
    for path in sorted(folder.iterdir())[:10]:
        path.write_bytes(b"")
    settings = tiny(data__train=[str(folder)], steps=4, checkpoint__every_epochs=None)
    with pytest.raises(ValueError, match="are unreadable, more than"):
        run_pretraining(settings)
    assert settings.output is not None
    table = (settings.output / "bad_images.csv").read_text(encoding="utf-8").splitlines()
    assert table[0] == "index,name,reason,count"
    assert len(table) > 4


def test_unreadable_images_are_replaced_and_listed(tiny: Settings, image_folder: Callable[..., Path]) -> None:
    folder = image_folder("mixed", each=40)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    result = run_pretraining(
        tiny(data__train=[str(folder)], data__max_bad_share=0.5, epochs=1, steps=None, optim__warmup_epochs=0)
    )
    header, *rows = (result.output / "bad_images.csv").read_text(encoding="utf-8").splitlines()
    assert header == "index,name,reason,count"
    assert len(rows) == 1
    assert "broken.jpg" in rows[0]
    assert list(result.unreadable.values()) == [1]


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_bfloat16_trains_on_the_cpu_and_exports_float32(tiny: Settings, backbone: str) -> None:
    result = run_pretraining(tiny(precision="bf16", backbone=backbone))
    assert np.isfinite(result.training.metrics["loss"])
    assert all(
        value.dtype == torch.float32
        for value in sslight.load_backbone(result.backbone).state_dict().values()
        if value.is_floating_point()
    )


def test_a_finished_run_without_its_export_is_completed_by_resume(tiny: Settings) -> None:
    result = run_pretraining(tiny())
    features = sslight.load_backbone(result.backbone)(torch.ones(1, 3, 32, 32))
    result.backbone.unlink()
    again = run_pretraining(tiny(resume=True))
    assert torch.equal(sslight.load_backbone(again.backbone)(torch.ones(1, 3, 32, 32)), features)
    assert again.training.metrics["loss"] == result.training.metrics["loss"]


def test_a_run_that_was_moved_goes_on_where_it_is_now(
    tiny: Settings, plain: PretrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "agreed", lambda flags, fabric, step: [step == 2, False, False])
        with pytest.raises(TrainingStopped):
            run_pretraining(tiny(output=str(tmp_path / "first")))
    moved = (tmp_path / "first").rename(tmp_path / "moved")
    result = sslight.pretrain(moved, resume=True)
    assert result.output == moved
    assert not (tmp_path / "first").exists()
    before, after = (sslight.load_backbone(path).state_dict() for path in (plain.backbone, result.backbone))
    assert all(torch.equal(after[name], value) for name, value in before.items())
    with pytest.raises(ValueError, match="moved already holds a run: add resume=true to continue it, or choose"):
        sslight.pretrain(moved)


def test_a_run_that_started_from_weights_is_resumed_by_the_same_command(
    tiny: Settings, plain: PretrainResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "agreed", lambda flags, fabric, step: [step == 1, False, False])
        with pytest.raises(TrainingStopped):
            run_pretraining(tiny(init_from=str(plain.backbone)))
    assert run_pretraining(tiny(init_from=str(plain.backbone), resume=True)).training.steps == 4


def test_an_unreadable_labelled_image_is_left_out_of_the_accuracy(
    tiny: Settings, image_folder: Callable[..., Path]
) -> None:
    folder = image_folder("classes", classes=("a", "b"), each=12)
    (folder / "a" / "000.jpg").write_bytes(b"no picture")
    result = run_pretraining(tiny(data__train=[str(folder)], data__val=[str(folder)], data__max_bad_share=0.5))
    assert result.training.measurements[-1]["step"] == 4


def test_a_checkpoint_of_another_network_ends_in_a_sentence(tiny: Settings, plain: PretrainResult) -> None:
    other = run_pretraining(tiny(dino__head_output_dim=16, steps=6))
    shutil.copy(plain.output / "checkpoints" / "last.pt", other.output / "checkpoints" / "last.pt")
    with pytest.raises(ValueError, match=r"last\.pt does not belong to this run"):
        run_pretraining(tiny(dino__head_output_dim=16, steps=6, resume=True))


def test_gradient_checkpointing_leaves_the_run_as_it_is(tiny: Settings, plain: PretrainResult) -> None:
    checkpointed = run_pretraining(tiny(grad_checkpointing=True))
    assert_same(without_times(lines(plain.output)), without_times(lines(checkpointed.output)))
    states = [load_checkpoint(r.output / "checkpoints" / "last.pt")["model"] for r in (plain, checkpointed)]
    assert_same(*(dict(state) for state in states))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "checkpointing"), [("test_resnet", False), ("test_vit3", False), ("test_vit3", True)]
)
def test_compiled_backbones_have_a_static_graph_for_each_size_of_each_networks_views(
    backbone: str, checkpointing: bool, tiny: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[bool] = []
    modes: list[str | None] = []
    compile_: Callable[..., Any] = torch.compile

    def count(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        graphs.append(all(isinstance(side, int) for x in inputs for side in x.shape))
        return graph.forward

    def compiled(function: Callable[..., Any], *, dynamic: bool, mode: str | None) -> Any:
        modes.append(mode)
        return compile_(function, dynamic=dynamic, backend=count)

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr("sslight.train.machine.devices.compilation_gains_nothing", lambda placement: False)
    settings = {"backbone": backbone, "data__val": ["synthetic:13:val"], "steps": 2}
    run_pretraining(tiny(**settings, compile="reduce-overhead", grad_checkpointing=checkpointing))
    assert modes == ["reduce-overhead"] * 2
    assert graphs == [True] * 3  # the student's global and local views, the teacher's global ones; none to measure


def test_waiting_for_data_is_told_once_with_what_helps(
    tiny: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(task, "waiting_advice", lambda share, **machine: f"waiting with {machine['workers']} workers")
    run_pretraining(tiny(epochs=2, steps=None, optim__warmup_epochs=0))
    assert capsys.readouterr().err.count("waiting with 0 workers") == 1


def test_bf16_is_warned_of_where_the_processor_is_slow_at_it(
    tiny: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cpu_layers, "bf16_is_fast_on_cpu", lambda: False)
    monkeypatch.setattr(cpu_layers, "onednn_computes_bf16", lambda: False)
    run_pretraining(tiny(steps=2, precision="bf16"))
    assert capsys.readouterr().err.count("precision=bf16 is several times slower than 32") == 1
    monkeypatch.setattr(cpu_layers, "bf16_is_fast_on_cpu", lambda: True)
    assert slow_precision("bf16", torch.device("cpu")) is None


def test_what_is_left_to_the_program_is_chosen_and_said(
    tiny: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sslight.train.machine.devices.bf16_is_fast_on_cpu", lambda: False)
    result = run_pretraining(tiny(steps=2, precision="auto", grad_checkpointing="auto"))
    said = capsys.readouterr().err
    assert "precision=32: bf16 is slow on this processor" in said
    assert "grad_checkpointing=false: 0.2 GiB are needed with it, 0.2 without, " in said
    settings = load_recipe(str(result.output / "config.yaml"), {})
    assert (settings.precision, settings.grad_checkpointing) == ("32", False)


def test_norms_computed_again_leave_the_run_as_it_is(tiny: Settings, plain: PretrainResult) -> None:
    again = run_pretraining(tiny(grad_checkpointing="norms"))
    states = [load_checkpoint(r.output / "checkpoints" / "last.pt")["model"] for r in (plain, again)]
    for (key, theirs), ours in zip(states[0].items(), states[1].values(), strict=True):
        if isinstance(theirs, torch.Tensor):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=key)


def test_compiled_backbones_take_no_norms_computed_again_nor_blocks_with_batch_norms(tiny: Settings) -> None:
    with pytest.raises(ValueError, match="grad_checkpointing=norms has no effect on compiled backbones"):
        tiny(grad_checkpointing="norms", compile=True)
    with pytest.raises(ValueError, match="grad_checkpointing=true cuts the compiled graphs of backbone=test_resnet at"):
        build_method(tiny(grad_checkpointing=True, compile=True))
    build_method(tiny(grad_checkpointing=True, compile=True, backbone="test_vit3"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [{"largest_only": True}]),
        ({"grad_checkpointing": "norms"}, [{"largest_only": False}]),
        ({"grad_checkpointing": True}, []),
        ({"compile": True}, []),
    ],
)
def test_activations_are_computed_again_as_the_settings_say(
    changes: dict[str, Any], expected: list[dict[str, bool]], tiny: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    around: list[dict[str, bool]] = []

    def noted(**words: bool) -> Any:
        around.append(words)
        return nullcontext()

    monkeypatch.setattr(task, "norms_computed_again", noted)
    with task._Pretraining(tiny(**changes), *(mock.MagicMock() for _ in range(4)))._keeping():
        assert around == expected
