"""``sslight report`` from a run folder to the page, as a command and as a function."""

import json
import math
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import sslight
from sslight.api.pretrain import run_pretraining
from sslight.api.report_pictures import _start, images_of
from sslight.cli.main import main
from sslight.config import PretrainSettings, load_recipe
from sslight.pretraining.health import HealthWatch, healthy_ranges
from tests.report.run.run_folders import two_epochs, write_run

FEW: dict[str, Any] = {"images": 24, "queries": 2}


def run(monkeypatch: pytest.MonkeyPatch, *words: str, code: int = 0) -> None:
    monkeypatch.setattr(sys, "argv", ["sslight", "report", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code or 0) == code


@pytest.fixture
def trained(tiny: Callable[..., PretrainSettings]) -> Path:
    """A real run of four steps, measured on validation images."""
    settings = tiny(data__val=["synthetic:40:val"], steps=4)
    return run_pretraining(settings).output


def test_a_real_run_becomes_a_page_and_is_left_as_it_was(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
    run(monkeypatch, str(trained), "images=24", "queries=2")
    out = capsys.readouterr().out
    assert "4 of 4" in out
    assert f"page  {trained / 'report.html'}" in out
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert page.count(">query</figcaption>") == 2
    assert page.count('class="image') == 2 * 24  # a map before training and one after
    assert page.count('class="of-run"><div class="soft">untrained</div>') == 2
    assert page.count('class="of-run"><div class="soft">pre-trained</div>') == 2
    assert page.count('class="sheet"') == 3
    for heading in ("Accuracy during the run", "Health", "Training", "Map of the features", "Settings", "Environment"):
        assert f">{heading}</h2>" in page
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {path for path in trained.rglob("*") if path.is_file()} == {*before, trained / "report.html"}

    run(monkeypatch, str(trained), "images=24", "queries=2", "--json")  # takes the place of the earlier page
    content = json.loads(capsys.readouterr().out)
    assert content["page"] == str(trained / "report.html")
    assert content["runs"][0]["accuracies"]["knn_top1"]["last_step"] == 4
    assert content["runs"][0]["finished"]
    low, high = content["runs"][0]["accuracies"]["knn_top1"]["untrained_interval"]
    assert 0 <= low < content["runs"][0]["accuracies"]["knn_top1"]["untrained"] < high
    assert content["notes"] == []
    assert (trained / "report.html").read_text(encoding="utf-8") == page  # nothing is left to chance


def test_the_network_before_training_is_the_one_that_the_run_began_with(
    tiny: Callable[..., PretrainSettings],
) -> None:
    settings = tiny(lr=1e-30, optim__min_lr=0.0, steps=2)
    trained = sslight.load_backbone(run_pretraining(settings).backbone)
    (start,) = _start(settings).values()
    for (name, before), after in zip(start.named_parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=1e-20, msg=name)
    assert list(_start(settings.model_copy(update={"init_from": Path("gone.pth")}))) == []


def test_a_run_that_still_goes_on_is_shown_with_its_checkpoint(trained: Path, tmp_path: Path) -> None:
    (trained / "backbone.safetensors").unlink()
    with (trained / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "ep')
    result = sslight.report_runs(trained, output=tmp_path / "page.html", **FEW)
    assert not result.content["runs"][0]["finished"]
    assert result.content["notes"] == []
    assert "weights: checkpoints/last.pt" in result.page.read_text(encoding="utf-8")


def test_several_runs_are_shown_the_same_images_and_share_views_that_are_the_same(
    trained: Path, tiny: Callable[..., PretrainSettings], tmp_path: Path
) -> None:
    copy, other = tmp_path / "copy", tmp_path / "other"
    shutil.copytree(trained, copy)
    run_pretraining(tiny(data__val=["synthetic:40:val"], steps=2, views__num_local=1, output=str(other)))
    result = sslight.report_runs([trained, copy, other], output=tmp_path / "page.html", **FEW)
    page = result.page.read_text(encoding="utf-8")
    assert [run["name"] for run in result.content["runs"]] == ["run", "copy", "other"]
    assert page.count(">query</figcaption>") == 2
    assert page.count('class="of-run"') == 2 * 3
    assert page.count('class="sheet"') == 3 * 2
    assert page.count('class="map"') == 3


def test_images_that_are_gone_are_said_to_be_and_the_rest_is_shown(tmp_path: Path) -> None:
    path = write_run(tmp_path / "first", data__val=["lost"])
    result = sslight.report_runs(path)
    notes = result.content["notes"]
    assert notes == [
        "first: no neighbors and no map: the run has no checkpoint yet.",
        "first: no views: data.train=nowhere does not exist; give a folder of images, an H5 file, tar shards, Parquet "
        "files or synthetic:N.",
    ]
    page = result.page.read_text(encoding="utf-8")
    assert "first: no views: data.train=nowhere does not exist" in page
    assert "Accuracy during the run" in page
    assert "Map of the features" not in page
    assert sslight.report_runs(path, images=0).content["notes"] == []


def test_states_that_the_run_did_not_note_are_found_from_its_figures(tmp_path: Path) -> None:
    lines = [line | {"step": 10 * line["step"]} for line in two_epochs()]
    noted = [line | {"health": "watch"} for line in lines if "loss" in line]
    content = sslight.report_runs(write_run(tmp_path / "new", lines=noted), images=0).content
    assert content["runs"][0]["health"]["state"] == "watch"
    assert content["runs"][0]["health"]["shares"] == {"watch": 1.0}
    assert not content["runs"][0]["health"]["judged_here"]
    lines = [line | {"target_spread": 0.9, "divergence": 0.5, "teacher_temp": 0.04} for line in lines if "loss" in line]
    for line in lines:
        line["feature_spread"] = 0.01
    health = sslight.report_runs(write_run(tmp_path / "old", lines=lines), images=0).content["runs"][0]["health"]
    assert (health["state"], health["judged_here"]) == ("collapsed", True)
    assert health["finding"].startswith("the features of all images are alike (spread 0.01")
    assert health["shares"]["early"] == pytest.approx(0.2)


@pytest.mark.parametrize(("images", "verdict"), [(50, "healthy"), (50_000, "watch")])
def test_accuracies_are_judged_with_the_number_of_images_that_the_run_recorded(
    tmp_path: Path, images: int, verdict: str
) -> None:
    well = {"target_spread": 0.9, "divergence": 0.5, "teacher_temp": 0.04, "teacher_entropy": 0.3}
    well |= {"effective_rank": 30.0, "data_wait_share": 0.0}
    lines = [line | {"step": 10 * line["step"]} for line in two_epochs()]
    lines = [line | (well if "loss" in line else {"knn_images": images}) for line in lines]
    lines.append({"step": 201, "epoch": 1, "knn_top1": 18.0, "knn_images": images})
    path = write_run(tmp_path / "run", lines=lines, epochs=3)
    result = sslight.report_runs(path, images=0)
    assert result.content["runs"][0]["health"]["state"] == verdict
    assert "knn_images" not in result.page.read_text(encoding="utf-8")


def test_names_of_classes_that_look_like_lists_are_kept_as_the_run_was_told(
    tmp_path: Path, image_folder: Callable[..., Path]
) -> None:
    folder = image_folder("images", each=4)
    rows = [f"{number:03}.jpg,a;{'b' if number < 2 else 'c'}" for number in range(4)]
    (tmp_path / "labels.csv").write_text("\n".join(["name,label", *rows]))
    data = {"data.val": [str(folder)], "data.val_labels": str(tmp_path / "labels.csv"), "data.multi_label": False}
    settings = load_recipe("dino_cnn_sslight_64", data)
    assert images_of(settings)[0].classes == ("a;b", "a;c")


def test_results_of_evaluations_are_found_and_damaged_ones_noted(tmp_path: Path) -> None:
    path = write_run(tmp_path / "first")
    result = {
        "format": "sslight-evaluation",
        "protocol": "linear (fast)",
        "accuracy": {"top1": 41.0, "top1_interval": [40.0, 42.0], "top5": 70.0},
        "checkpoint": {"backbone": "resnet18", "path": "runs/first/backbone.safetensors"},
        "data": {"train": {"num_images": 100}, "val": {"num_images": 50}},
        "transform": {"image_size": 64},
        "details": {},
        "per_class": {"cat": {"accuracy": 30.0, "images": 20}, "dog": {"accuracy": 10.0, "images": 30}},
        "confusions": [{"class": "dog", "taken_for": "cat", "images": 12}],
    }
    broken = {"broken": {"format": "sslight-evaluation", "protocol": "knn"}, "odd": result | {"notes": "no list"}}
    for folder, written in {"linear-1": result, **broken}.items():
        (path / "evaluation" / folder).mkdir(parents=True)
        (path / "evaluation" / folder / "results.json").write_text(json.dumps(written))
    told = "120 images of data.val are also in data.train, so the accuracy is too high."
    (path / "evaluation" / "linear-1" / "results.json").write_text(json.dumps(result | {"notes": [told]}))
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text(json.dumps(result | {"protocol": "knn", "details": {"k": 20}}))
    report = sslight.report_runs([path, elsewhere, path / "evaluation" / "linear-1"], images=0)
    content, page = report.content, report.page.read_text(encoding="utf-8")
    assert page.count("the worst: dog 10 %, cat 30 %") == 2
    assert '<th scope="row">dog</th><td>cat</td><td>12</td>' in page
    origins = [(row["origin"], row["protocol"], row["top1"]) for row in content["results"]]
    assert origins == [
        ("measured", "knn, k = 20", 41.0),
        ("measured", "linear (fast)", 41.0),
        ("published", "linear (published)", 62.2),
        ("published", "linear (published)", 65.7),
    ]
    assert f"linear-1: {told}" in content["notes"]
    assert f"linear-1: {told}" in page
    assert len(content["notes"]) == 3
    assert "odd/results.json is damaged (TypeError: notes are no list) and was left out." in " ".join(content["notes"])
    assert "broken/results.json is damaged (KeyError: 'data') and was left out." in " ".join(content["notes"])


def test_a_folder_of_runs_becomes_a_table_with_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [write_run(tmp_path / "runs" / name, lr=lr) for name, lr in (("a", 1.0), ("sweep/b", 2.0), ("sweep/c", 2.0))]
    (runs[0] / "backbone.safetensors").touch()
    (runs[0] / "report.html").touch()
    os.utime(runs[1] / "metrics.jsonl", (0, 0))
    (runs[2] / "evaluation" / "knn").mkdir(parents=True)
    result = {"format": "sslight-evaluation", "protocol": "knn", "accuracy": {"top1": 41.0, "top1_interval": [40, 42]}}
    (runs[2] / "evaluation" / "knn" / "results.json").write_text(json.dumps(result))
    (tmp_path / "runs" / "notes").mkdir()
    run(monkeypatch, str(tmp_path / "runs"), "--json")
    content = json.loads(capsys.readouterr().out)
    found = [(one["name"], one["state"], one["differs"]) for one in content["runs"]]
    assert found == [("a", "ended", {"lr": 1.0}), ("b", "stopped", {"lr": 2.0}), ("c", "running", {"lr": 2.0})]
    assert content["runs"][2]["evaluations"] == [{"protocol": "knn", "top1": 41.0, "interval": [40.0, 42.0]}]
    assert content["page"] == str(tmp_path / "runs" / "report.html")
    page = (tmp_path / "runs" / "report.html").read_text(encoding="utf-8")
    assert '<a href="a/report.html">a</a>' in page
    assert "<td>knn 41.0 %</td><td>lr=2.0</td>" in page
    assert "online probe" not in page  # a column that says nothing
    monkeypatch.setenv("COLUMNS", "40")
    run(monkeypatch, str(tmp_path / "runs"))
    out = capsys.readouterr().out
    assert "18.0 %" in out
    assert "c: lr=2.0" in out  # however narrow the terminal
    with pytest.raises(ValueError, match="does not belong in a table of all runs"):
        sslight.report_runs([tmp_path / "runs", runs[2] / "evaluation" / "knn"])


def test_a_page_without_a_suffix_gets_that_of_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_run(tmp_path / "first")
    monkeypatch.setenv("HOME", str(tmp_path))
    names = {"v1.2": "v1.2.html", "first.htm": "first.htm", "~/mine": "mine.html"}
    for output, written in names.items():
        page = sslight.report_runs(path, output=tmp_path / output if "~" not in output else output, images=0).page
        assert page == tmp_path / written


def test_beyond_a_healthy_range_the_verdict_finds_fault_and_within_it_none(tmp_path: Path) -> None:
    path = write_run(tmp_path / "first", batch_size=64)
    for recipe, method in (("dino_cnn_sslight_64", "dino"), ("swav_cnn_sslight_64", "swav")):
        settings = load_recipe(recipe, {"batch_size": 64})
        ranges = healthy_ranges(settings, rows=64)
        well = {"loss": 1.0, "feature_spread": 0.5, "effective_rank": 30.0, "data_wait_share": 0.0, "divergence": 0.0}
        well |= {"teacher_entropy": 0.3, "target_spread": 1.0, "teacher_temp": 0.04, "assignment_entropy": 0.5}
        assert state(settings, well) == "healthy"
        of_method = {"dino": {"teacher_entropy", "target_spread"}, "swav": {"assignment_entropy"}}[method]
        for name in {"feature_spread", "effective_rank", "data_wait_share"} | of_method:
            low, high = ranges[name]
            end, out = (low, -0.001) if math.isfinite(low) else (high, 0.001)
            others = {"teacher_entropy": 0.0} if name == "target_spread" else {}
            assert state(settings, well | others | {name: end - out}) == "healthy", name
            assert state(settings, well | others | {name: end + out}) != "healthy", name
    page = sslight.report_runs(path, images=0).page.read_text(encoding="utf-8")
    assert page.count('class="range"') == 4


def state(settings: PretrainSettings, record: dict[str, float]) -> str:
    watch = HealthWatch(settings, rows=64)
    return [watch.judge(1000, record).state for _ in range(5)][-1]


def test_a_run_of_detection_has_curves_and_no_views(tmp_path: Path) -> None:
    path = write_run(
        tmp_path / "detect", lines=[{"step": i, "epoch": 0, "loss": 1.0, "loss_mask": 2.0} for i in (1, 2)]
    )
    (path / "config.yaml").write_text("backbone: resnet18\nschedule: 1x\nbatch_size: 2\n")
    result = sslight.report_runs(path)
    assert result.content["notes"] == []
    assert "loss_mask" in result.page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere does not exist: give the folder that `sslight pretrain` wrote"),
        (["empty"], "empty holds no run: give the folder"),
        (["first", "first/"], "first is given twice: name each run once"),
        (["other.json"], "no run given: give a run folder"),
        (["first", "other.json"], "other.json is not a result of sslight evaluate"),
        (["first", "output=other.json"], "output=other.json exists and is not a page of `sslight report`"),
        (["first", "imags=3"], "imags is not a setting: did you mean images?"),
        ([f"r{i}" for i in range(7)], "7 runs are given, but a page holds at most 6: name fewer"),
    ],
)
def test_wrong_words_end_in_one_sentence_before_any_work(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("first", *(f"r{i}" for i in range(7))):
        write_run(tmp_path / name, lines=[])
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, *words, code=2)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.html"))
