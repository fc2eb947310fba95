"""The replication benchmark: what is compared, what fits a budget, and what the report says."""

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sslight.config import load_recipe

REPLICATION = Path(__file__).parents[1] / "benchmarks" / "replication"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the benchmark by its name."""
    monkeypatch.syspath_prepend(str(REPLICATION))
    return importlib.import_module


@pytest.mark.parametrize("method", ["dino", "swav", "moco"])
def test_the_variants_are_the_four_settings_alone_together_and_the_baseline_with_as_many_pixels(
    script: Any, method: str
) -> None:
    matrix = script("matrix")

    def built(variant: str) -> Any:
        cell = matrix.Cell(method, "test_resnet", variant, 0)
        return load_recipe(matrix.recipe_of(cell), matrix.cell_settings(cell, epochs=4, steps_per_epoch=250))

    baseline, sslight = built("baseline"), built("sslight")
    assert len(matrix.SINGLE) == 4
    for key in matrix.SINGLE:
        single = built(key)
        changed = single.model_dump()
        group, _, name = key.rpartition(".")
        (changed[group] if group else changed)[name] = (baseline.model_dump()[group] if group else dict(baseline))[name]
        assert changed == baseline.model_dump()
        assert single != baseline
    wanted = sslight.steps * matrix.view_pixels(sslight)
    longer, more = built("baseline, longer"), built("baseline, more views")
    assert abs(longer.steps * matrix.view_pixels(longer) - wanted) <= matrix.view_pixels(longer) / 2
    assert longer.views == baseline.views
    assert more.steps == sslight.steps
    assert wanted <= more.steps * matrix.view_pixels(more) < wanted + more.steps * more.views.local_size**2


def test_the_length_is_the_longest_that_fits_and_what_does_not_fit_is_refused(script: Any) -> None:
    matrix = script("matrix")
    small = matrix.Matrix({"dino": ("baseline", "sslight")}, ("net",))
    costs = {("dino", "net"): matrix.Cost(fixed=10, images_per_second=100)}

    def fit(seconds: float, seeds: int = 3) -> Any:
        return matrix.fit(small, costs, images=1000, seeds=seeds, seconds=seconds, jobs=2)

    length = fit(400)
    # 6 runs of E epochs and 6 of the selection, 10 s and 10 s an epoch each, two at once.
    assert (length.epochs, length.selection_epochs, length.seeds) == (8, 2, 3)
    assert length.seconds == (6 * (10 + 80) + 6 * (10 + 20)) / 2
    assert fit(1e6).epochs == 100
    assert fit(1e6).seeds == 5
    assert fit(1e6, seeds=7).seeds == 7
    with pytest.raises(ValueError, match=r"one epoch of every run takes about 2 minutes, and 1 are left of --minutes"):
        fit(60)


def test_intervals_are_students(script: Any) -> None:
    from scipy import stats

    results = script("results")
    values = [3.0, 4.5, 4.0, 7.0]
    low, high = stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=stats.sem(values))
    middle, half = results.interval(values)
    assert middle - half == pytest.approx(low, abs=2e-3)
    assert middle + half == pytest.approx(high, abs=2e-3)
    assert math.isnan(results.interval([1.0])[1])


@pytest.fixture
def images(tmp_path: Path) -> tuple[Path, Path]:
    """Two classes of PNGs of 32 px: for training, 210 each, and for validation, 6 each."""
    for part, each in (("train", 210), ("val", 6)):
        for number, color in enumerate(["red", "blue"]):
            folder = tmp_path / part / color
            folder.mkdir(parents=True)
            for i in range(each):
                Image.new("RGB", (32, 32), (250 - i if number else i, i, 99)).save(folder / f"{i}.png")
    return tmp_path / "train", tmp_path / "val"


def arguments(script: Any, monkeypatch: pytest.MonkeyPatch, images: tuple[Path, Path], output: Path) -> Any:
    words = [*map(str, images), "--output", str(output), "--matrix", "cpu", "--jobs", "1", "--share", "0.5"]
    monkeypatch.setattr(sys, "argv", ["run.py", *words, "--methods", "moco", "--backbones", "test_resnet"])
    return script("run")._parse()


def test_images_held_out_for_the_selection_are_not_trained_on_in_it(
    script: Any, monkeypatch: pytest.MonkeyPatch, images: tuple[Path, Path], tmp_path: Path
) -> None:
    bench = script("run").Bench(arguments(script, monkeypatch, images, tmp_path / "out"))
    every, selecting, held, number = bench.split(0.5)
    used, kept = (set(path.read_text(encoding="utf-8").split()) for path in (every, selecting))
    drawn = {str(path.relative_to(held)) for path in held.rglob("*.png")}
    assert number == len(used) == 210
    assert len(drawn) == 42
    assert kept == used - drawn
    assert all(path.resolve().is_file() for path in held.rglob("*.png"))


def test_without_a_learning_rate_from_the_selection_the_matrix_does_not_start(
    script: Any, monkeypatch: pytest.MonkeyPatch, images: tuple[Path, Path], tmp_path: Path
) -> None:
    run = script("run")
    stages: list[str] = []
    given = arguments(script, monkeypatch, images, tmp_path / "out")
    bench = run.Bench(given)

    def failing(title: str, jobs: Any, pool: Any) -> list[str]:
        stages.append(title)
        return ["a sentence"]

    monkeypatch.setattr(bench, "run_all", failing)
    plan = {"length": {"epochs": 1, "selection_epochs": 1, "seeds": 1, "seconds": 1.0}}
    matrix = script("matrix").Matrix({"dino": ("baseline",)}, ("test_resnet",))
    assert run._go(bench, matrix, given, {}, plan, None) == ["a sentence"]
    assert stages == ["selection"]


def test_a_run_is_done_once_and_reported_with_its_difference_from_the_baseline(
    script: Any, monkeypatch: pytest.MonkeyPatch, images: tuple[Path, Path], tmp_path: Path
) -> None:
    run, matrix, results = script("run"), script("matrix"), script("results")
    monkeypatch.setattr(run, "_keep_what_is_said", lambda folder: None)
    output = tmp_path / "out"
    every = run.Bench(arguments(script, monkeypatch, images, output)).split(0.5)[0]
    tiny = {"steps": 12, "batch_size": 8, "workers": 0, "logger": "none", "moco.queue_size": 16, "lr": 1.0}
    for variant in ("baseline", "sslight"):
        cell = matrix.Cell("moco", "test_resnet", variant, 0)
        settings = {**tiny, "optim.warmup_epochs": 0.2}
        job = run.Job(cell, output / "matrix" / cell.name, settings, images[0], every, images[1], variant)
        first = run.run_job(job)
        written = (job.folder / "knn" / "results.json").stat().st_mtime_ns
        assert run.run_job(job) == first
        assert (job.folder / "knn" / "results.json").stat().st_mtime_ns == written
        assert first.steps == 12
        assert not (job.folder / "features").exists()
    plan = {"length": {"epochs": 1, "seeds": 1}, "asked": {"minutes": 1.0}, "images": 210, "jobs": 1, "device": "CPU"}
    plan |= {"precision": "32", "torch": "2", "date": "2026-11-27"}
    (output / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    results.write_report(output)
    text = (output / "RESULTS.md").read_text(encoding="utf-8")
    assert "2 runs: 1 epochs of 210 images" in text
    assert "* SSLight − baseline, kNN: " in text
    assert "one seed says nothing about chance" in text
    with Image.open(output / "results.png") as picture:
        assert picture.width > 1000


_STARTS_A_RUN = """
import os, time
from processes import processes

if __name__ == "__main__":
    with processes(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 60).result()
"""


def test_a_run_ends_with_a_killed_command(tmp_path: Path) -> None:
    program = tmp_path / "command.py"
    program.write_text(_STARTS_A_RUN, encoding="utf-8")
    where = {**os.environ, "PYTHONPATH": str(REPLICATION)}
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True, env=where) as command:
        assert command.stdout is not None
        worker = int(command.stdout.readline())
        os.kill(worker, 0)
        command.kill()
    for _ in range(100):
        state = Path(f"/proc/{worker}/stat")
        try:  # a dead process that nobody has waited for is a zombie
            if state.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the run goes on without its command")
