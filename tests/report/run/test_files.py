"""Run folders are read as they are: cut short, going on, resumed, damaged, hostile."""

import json
import math
import os
from pathlib import Path

import pytest

from sslight.report.run.files import Run, is_run_folder, read_run
from sslight.report.run.summary import run_summary
from tests.report.run.run_folders import two_epochs, write_metrics, write_run


def read(path: Path) -> Run:
    return read_run(path, name="run")


def test_figures_come_by_name_and_step(tmp_path: Path) -> None:
    run = read(write_run(tmp_path / "run"))
    assert run.notes == []
    assert run.series["knn_top1"] == [(0, 5.0), (10, 20.0), (20, 18.0)]
    assert len(run.series["loss"]) == 20
    assert (run.step, run.steps_per_epoch, run.total_steps) == (20, 10, 20)
    assert run.settings["dino.student_temp"] == 0.1
    assert not run.finished
    (tmp_path / "run" / "backbone.safetensors").touch()
    assert read(tmp_path / "run").finished


def test_a_last_line_cut_short_is_passed_over_and_damage_elsewhere_is_noted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    whole = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(whole + '{"step": 21, "lo')
    assert read(run).step == 20
    assert read(run).notes == []
    (run / "metrics.jsonl").write_text('no json\n[1]\n{"step": "3"}\n{"step": -1}\n{"step": 1e400}\n' + whole)
    assert read(run).step == 20
    assert read(run).notes == ["metrics.jsonl: 5 of 28 lines are damaged and were left out."]


def test_figures_that_are_not_finite_are_gaps(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    text = '{"step": 1, "loss": null, "a": NaN, "b": Infinity, "c": %s, "d": true, "e": [1], "f": "x"}\n' % ("9" * 400)
    (run / "metrics.jsonl").write_text(text)
    series = read(run).series
    assert sorted(series) == ["a", "b", "c", "loss"]
    assert all(math.isnan(points[0][1]) for points in series.values())


def test_of_steps_done_twice_the_later_record_counts(tmp_path: Path) -> None:
    lines = [{"step": step, "epoch": 0, "loss": loss} for step, loss in ((1, 5.0), (2, 4.0), (3, 3.0), (2, 2.0))]
    assert read(write_run(tmp_path / "run", lines=lines)).series["loss"] == [(1, 5.0), (2, 2.0), (3, 3.0)]


def test_missing_and_damaged_files_are_noted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "config.yaml").write_text("a: &x 1\nb: *x\n")
    (run / "environment.json").write_text("[" * 100_000)
    (run / "metrics.jsonl").unlink()
    os.mkfifo(run / "nonfinite.jsonl")
    notes = " ".join(read(run).notes)
    assert "config.yaml cannot be read (" in notes
    assert "environment.json is damaged and was left out." in notes
    assert "There is no metrics.jsonl." in notes
    assert "nonfinite.jsonl cannot be read (it is a pipe" in notes
    assert run_summary(read(run))["step"] == 0


def test_before_the_first_epoch_ends_the_length_of_the_run_is_not_known(tmp_path: Path) -> None:
    lines = two_epochs()[:6]
    run = read(write_run(tmp_path / "run", lines=lines))
    assert (run.steps_per_epoch, run.total_steps) == (None, None)
    assert read(write_run(tmp_path / "other", lines=lines, epochs=None, steps=50)).total_steps == 50


def test_states_are_kept_apart_from_figures_and_summed_up_by_steps(tmp_path: Path) -> None:
    states = ["early"] * 2 + ["healthy"] * 6 + ["watch"] * 2
    lines = [{"step": 10 * (i + 1), "epoch": 0, "loss": 1.0, "health": state} for i, state in enumerate(states)]
    run = read(write_run(tmp_path / "run", lines=lines))
    assert "health" not in run.series
    health = run_summary(run)["health"]
    assert health["state"] == "watch"
    assert health["shares"] == pytest.approx({"early": 0.2, "healthy": 0.6, "watch": 0.2})


def test_the_summary_has_best_and_last_accuracy_and_the_cost(tmp_path: Path) -> None:
    summary = run_summary(read(write_run(tmp_path / "run")))
    knn = summary["accuracies"]["knn_top1"]
    assert list(knn.values()) == ["untrained", 5.0, 20.0, 10, 18.0, 20, None]
    assert "probe_top1" not in summary["accuracies"]
    cost = summary["cost"]  # 80 images at 4 a second, half of the time waiting, and 80 at 8
    assert cost["images"] == 160
    assert cost["seconds"] == pytest.approx(30)
    assert cost["data_wait_share"] == pytest.approx(1 / 3)
    assert cost["gpu_hours"] is None
    assert summary["health"] is None
    json.dumps(summary, allow_nan=False)


@pytest.mark.parametrize(("devices", "number"), [("auto", 3), ("2", 2), ("cpu", 0)])
def test_gpu_hours_count_the_gpus_that_were_used(tmp_path: Path, devices: str, number: int) -> None:
    path = write_run(tmp_path / "run", devices=devices)
    (path / "environment.json").write_text('{"gpus": ["H100", "H100", "H100"]}')
    cost = run_summary(read(path))["cost"]
    assert cost["gpus"] == ["H100"] * number
    assert cost["gpu_hours"] == (pytest.approx(number * 30 / 3600) if number else None)


def test_a_folder_of_a_run_is_known_by_any_of_its_files(tmp_path: Path) -> None:
    assert not is_run_folder(tmp_path)
    write_metrics(tmp_path, [])
    assert is_run_folder(tmp_path)


@pytest.mark.parametrize("made", ["backbone.safetensors", "results.json"])
def test_a_run_has_ended_once_all_steps_are_done_and_what_it_makes_is_there(made: str, tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    assert not read_run(path, name="run").finished
    (path / made).touch()
    assert read_run(path, name="run").finished
