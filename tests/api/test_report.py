"""``sslight report`` from a run folder to the page, as a command and as a function."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sslight
from sslight.api.pretrain import run_pretraining
from sslight.cli.main import main
from sslight.config import PretrainSettings
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
    assert page.count('class="image') == 24
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
    assert content["notes"] == []
    assert (trained / "report.html").read_text(encoding="utf-8") == page  # nothing is left to chance


def test_a_run_that_still_goes_on_is_shown_with_its_checkpoint(trained: Path, tmp_path: Path) -> None:
    (trained / "backbone.safetensors").unlink()
    with (trained / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "ep')
    result = sslight.report_runs(trained, output=tmp_path / "page.html", **FEW)
    assert not result.content["runs"][0]["finished"]
    assert result.content["notes"] == []
    assert "weights from checkpoints/last.pt" in result.page.read_text(encoding="utf-8")


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
        "first: no neighbours and no map: the run has no checkpoint yet.",
        "first: no views: data.train=nowhere does not exist; give a folder of images, an H5 file, tar shards or "
        "synthetic:N.",
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


def test_results_of_evaluations_are_found_and_damaged_ones_noted(tmp_path: Path) -> None:
    path = write_run(tmp_path / "first")
    result = {
        "format": "sslight-evaluation",
        "protocol": "linear (exact)",
        "accuracy": {"top1": 41.0, "top1_interval": [40.0, 42.0], "top5": 70.0},
        "checkpoint": {"backbone": "resnet18", "path": "runs/first/backbone.safetensors"},
        "data": {"train": {"num_images": 100}, "val": {"num_images": 50}},
        "transform": {"image_size": 64},
        "details": {},
    }
    for folder, written in (("linear-1", result), ("broken", {"format": "sslight-evaluation", "protocol": "knn"})):
        (path / "evaluation" / folder).mkdir(parents=True)
        (path / "evaluation" / folder / "results.json").write_text(json.dumps(written))
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text(json.dumps(result | {"protocol": "knn", "details": {"k": 20}}))
    content = sslight.report_runs([path, elsewhere, path / "evaluation" / "linear-1"], images=0).content
    origins = [(row["origin"], row["protocol"], row["top1"]) for row in content["results"]]
    assert origins == [
        ("measured", "knn, k = 20", 41.0),
        ("measured", "linear (exact)", 41.0),
        ("published", "linear", 62.2),
        ("published", "linear", 65.7),
    ]
    assert len(content["notes"]) == 1
    assert "broken/results.json is damaged (KeyError: 'checkpoint') and left out." in content["notes"][0]


def test_a_run_of_detection_has_curves_and_no_views(tmp_path: Path) -> None:
    path = write_run(
        tmp_path / "detect", lines=[{"step": i, "epoch": 0, "loss": 1.0, "loss_mask": 2.0} for i in (1, 2)]
    )
    (path / "config.yaml").write_text("backbone: resnet18\nschedule: 1x\nbatch_size: 2\n")
    result = sslight.report_runs(path)
    assert result.content["notes"] == [
        "detect: no views, neighbours or map, since its config.yaml is not one of pre-training with this version."
    ]
    assert "loss_mask" in result.page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere does not exist: give the folder that `sslight pretrain` wrote"),
        (["."], ". holds no run: give the folder"),
        (["first", "first/"], "first is given twice: name each run once"),
        (["other.json"], "no run is named: give the folder"),
        (["first", "other.json"], "other.json is not a result of sslight evaluate"),
        (["first", "output=other.json"], "output=other.json exists and is not a page of `sslight report`"),
        (["first", "imags=3"], "imags is not a setting of the report: did you mean images?"),
        ([f"r{i}" for i in range(7)], "7 runs are named, and a page tells 6 apart: name fewer"),
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
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, *words, code=2)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.html"))
