"""The queue of runs: what its plans say, how it stops and goes on, and what its page says."""

import importlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from timm.models._efficientnet_blocks import InvertedResidual

from sslight.backbones import build_backbone, load_backbone
from sslight.config import load_recipe, read_recipe
from sslight.evaluate.features.extract import Extraction, extract_features
from sslight.methods import DINO, StepOutput, StepValues, build_method
from sslight.views import build_multi_crop

REPLICATION = Path(__file__).parents[1] / "benchmarks" / "replication"
PLANS = sorted((REPLICATION / "plans").glob("*.yaml"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the benchmark by its name."""
    monkeypatch.syspath_prepend(str(REPLICATION))
    return importlib.import_module


def pixels(settings: Any) -> int:
    """Of all views of an image."""
    views = settings.views
    return int(views.num_global * views.global_size**2 + views.num_local * views.local_size**2)


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_the_runs_of_every_plan_resolve_and_are_compared_with_runs_that_there_are(script: Any, path: Path) -> None:
    script("networks")
    plans = [script("plan").read_plan(other) for other in PLANS]
    names = [name for plan in plans for name in {run.name for run in plan.runs}]
    assert len(names) == len(set(names))
    for run in {run.name: run for run in script("plan").read_plan(path).runs}.values():
        load_recipe(run.recipe, {"probe.knn": True, **run.settings})  # as the worker does
        assert set(run.against) <= set(names)


def test_a_result_is_read_as_it_was_written_with_records_that_lack_a_value(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, path = script("page"), tmp_path / "one.json"
    curve: list[dict[str, Any]] = [{"step": 0, "loss": 0.0, "done": False}, {"step": 2, "health": "early"}]
    result = {"curve": curve, "accuracies": [], "measured": {}}
    page.write_result(path, result)
    assert page.read_result(path) == result
    assert '"step":[0,2]' in path.read_text()
    path.write_text(json.dumps({**result, "curve": [{**curve[0], "grad_norm": None}, curve[1]]}))  # a list, as before
    assert page.read_result(path) == result
    for damaged in ("null", "[]", '"measured"', '{"curve": "a", "measured": {}}'):
        path.write_text(damaged)
        assert page.read_result(path) is None
        assert "is no result" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("plan", "prefix"),
    [("first", "fifth-v3s"), ("settings", "dino-v3s"), ("gpu", "gpu-dino-resnet18"), ("cpu", "cpu-dino")],
)
def test_the_four_settings_alone_are_those_of_sslight_and_the_longer_baseline_has_as_many_pixels(
    script: Any, plan: str, prefix: str
) -> None:
    runs = {run.name: run for run in script("plan").read_plan(REPLICATION / "plans" / f"{plan}.yaml").runs}
    changes = read_recipe("dino_cnn_sslight_64").changes
    alone = [runs[f"{prefix}-{name}"].settings for name in ("weight", "global-scale", "local-scale", "local-size")]
    assert {key: value for settings in alone for key, value in settings.items() if key in changes} == changes
    sslight, baseline = load_recipe("dino_cnn_sslight_64"), load_recipe("dino_cnn_baseline_64")
    images = 25_000 * runs[f"{prefix}-longer"].settings.get("data.subset", 1)
    steps = 20 * (images // 64)
    assert runs[f"{prefix}-longer"].settings["steps"] == round(steps * pixels(sslight) / pixels(baseline))
    if plan == "gpu":
        more = baseline.views.num_local + math.ceil((pixels(sslight) - pixels(baseline)) / baseline.views.local_size**2)
        assert runs[f"{prefix}-more-views"].settings["views.num_local"] == more


SMALL = """
about: Small.
data: set
defaults: {recipe: moco_cnn_baseline_64, seeds: [0, 1], settings: {backbone: test_resnet}, measure: {knn: {}}}
runs:
  - {name: one, against: [two]}
  - {name: "two{x}", for: {x: ["", b]}, settings: {lr: 1.0}}
"""


def small(script: Any, tmp_path: Path, worker: str) -> Any:
    """A queue of six runs, done by the program ``worker``."""
    for part in ("train", "val"):
        (tmp_path / "data" / "set" / part).mkdir(parents=True, exist_ok=True)
    (tmp_path / "small.yaml").write_text(SMALL)
    (tmp_path / "worker.py").write_text(worker)
    plan = script("plan").read_plan(tmp_path / "small.yaml")
    places = {"data": tmp_path / "data", "runs": tmp_path / "runs", "results": tmp_path / "results"}
    return script("evidence").Queue([plan], **places, worker=tmp_path / "worker.py")


RESULT = {
    "steps": 9, "hours": 0.5, "processor_hours": 0.25, "processor": "P", "precision": "32", "versions": {"torch": "2"},
    "accuracies": [{"step": 0, "knn_top1": 7.0}, {"step": 9, "knn_top1": 8.5}],
    "curve": [{"step": 1, "loss": 2.0, "health": "early"}, {"step": 9, "loss": 1.0, "health": "healthy"}],
}  # fmt: skip
DONE = f"""
import json, sys
from pathlib import Path
folder = Path(sys.argv[1])
run = json.loads((folder / "run.json").read_text())["run"]
ranks = [0] * (30 if run["name"] == "one" else 10) + [1] * 30
measured = {{"knn": {{"top1": 50.0, "interval": [40, 60], "images": 40, "ranks": ranks[:40]}}}}
(folder / "result.json").write_text(json.dumps({{**run, **{RESULT!r}, "measured": measured}}))
with (folder.parent / "order").open("a") as order:
    order.write(folder.name + " ")
"""


def test_whole_seeds_are_done_one_after_another_once_and_the_page_compares_them(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # its import takes longer than all of this
    queue = small(script, tmp_path, DONE)
    page = tmp_path / "EVIDENCE.md"
    while queue._next():
        pass
    queue.write_page(page)
    assert (tmp_path / "runs" / "order").read_text() == "one-0 two-0 twob-0 one-1 two-1 twob-1 "
    assert not queue._next()
    text = page.read_text()
    assert "| difference | seeds | knn |\n|---|---|---|\n| one − two | 0, 1 | +50.0 ± 16.2 |\n" in text
    assert "| one | 0 | 50.0 [40.0, 60.0] | 9 | 0.5, 0.2 | early, healthy |  | 7.0 → 8.5 |" in text
    assert (
        "sslight pretrain moco_cnn_baseline_64 data.train=set/train seed=SEED backbone=test_resnet lr=1.0 precision=32"
        in text
    )
    (tmp_path / "results" / "one-1.json").unlink()
    (tmp_path / "runs" / "one-1" / "result.json").unlink()
    queue.write_page(page)
    assert "| one − two | 0 | **+50.0 [+31.1, +64.1]** |" in page.read_text()


def test_a_run_whose_plan_was_changed_since_is_not_continued_and_the_next_is_done(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = small(script, tmp_path, DONE)
    run = queue.plans[0].runs[0]
    (tmp_path / "runs" / run.key).mkdir(parents=True)
    began = {**vars(run), "settings": {"backbone": "resnet18"}}
    (tmp_path / "runs" / run.key / "run.json").write_text(json.dumps({"run": began}))
    assert queue._next()
    assert queue._next()
    assert queue.failed == {"one-0"}
    assert (tmp_path / "runs" / "order").read_text() == "two-0 "
    assert "the plan says another settings than it began with" in capsys.readouterr().out


def test_a_run_that_fails_is_passed_by_and_its_last_words_are_told(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = small(script, tmp_path, "raise SystemExit('error: the loss became nan')")
    assert [queue._next() for _ in range(7)] == [True] * 6 + [False]
    assert len(queue.failed) == 6
    assert "one-0: failed (1): error: the loss became nan" in capsys.readouterr().out


WEIGHED = """
import sys, time
from pathlib import Path
group = Path("/proc/self/autogroup")
for _ in range(200):
    if group.read_text().split()[-1] == "19":
        raise SystemExit("error: weighed as the last of all")
    time.sleep(0.01)
"""


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="the kernel does not group processes by session")
def test_a_worker_yields_to_the_sessions_of_others(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small(script, tmp_path, WEIGHED)._next()
    assert "weighed as the last of all" in capsys.readouterr().out


def test_a_run_that_another_queue_does_is_left_to_it(script: Any, tmp_path: Path) -> None:
    queue = small(script, tmp_path, DONE)
    with script("evidence")._alone(tmp_path / "runs" / "one-0") as alone:
        assert alone
        queue._next()
    assert (tmp_path / "runs" / "order").read_text() == "two-0 "


STOPS = """
import signal, sys, time
from pathlib import Path
def stop(number, _):
    (Path(sys.argv[1]) / "stopped").write_text(signal.Signals(number).name)
    sys.exit(1)
signal.signal(signal.SIGTERM, stop)
(Path(sys.argv[1]) / "ready").touch()
time.sleep(30)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_under_way_with_sigterm_and_begins_no_other(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(os, "setpriority", lambda *_: None)
    queue = small(script, tmp_path, STOPS)
    folder = tmp_path / "runs" / "one-0"

    def interrupt() -> None:
        for _ in range(6000):
            if (folder / "ready").exists():
                os.kill(os.getpid(), number)
                return
            time.sleep(0.01)

    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    threading.Thread(target=interrupt).start()
    try:
        queue.work(tmp_path / "EVIDENCE.md")
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
    assert (folder / "stopped").read_text() == "SIGTERM"
    assert not queue.failed
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["one-0"]


def test_a_plan_with_an_unknown_key_or_a_name_twice_is_refused(script: Any, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(SMALL.replace("against: [two]", "agaisnt: [two]"))
    with pytest.raises(ValueError, match="one has an unknown key agaisnt: use against, code"):
        script("plan").read_plan(path)
    path.write_text(SMALL.replace("name: one", "name: two"))
    with pytest.raises(ValueError, match="two comes twice"):
        script("plan").read_plan(path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "measure: {knn: {}}",
            "measure: {knnn: {}}",
            "one, knnn: use a name that begins with knn, linear, semi or fine",
        ),
        ("measure: {knn: {}}", "measure: {knn: {k: 200}}", "one, knn: k is not known here: use .* knn.k"),
        ("measure: {knn: {}}", "measure: {linear: {}}", "one, linear: .* linear.mode: fast alone"),
        (
            "resnet}, measure: {knn: {}}",
            "resnet, views.global_size: 48}, measure: {knn: {resize: 64}}",
            "one, knn: resize=64 and then the middle 48 px would be seen: use resize=48",
        ),
        ("measure: {knn: {}}", "measure: {semi 1 %: {semi.epoch: 3}}", "one, semi 1 %: semi.epoch is not a setting"),
        ("measure: {knn: {}}", "measure: {finetune 1 %: {lr: -1}}", "one, finetune 1 %: lr"),
        (
            "measure: {knn: {}}",
            "held_out: true, measure: {semi 1 %: {}}",
            "one, semi 1 %: labels of held-out images would",
        ),
        ("about: Small.", "abuot: Small.", "wrong.yaml lacks about"),
        ("about: Small.", "about: Small.\ndefault: {}", "wrong.yaml has an unknown key default"),
        (SMALL, "- a list", "wrong.yaml lacks about, data, runs"),
    ],
)
def test_what_a_plan_gets_wrong_is_said_before_any_training(
    script: Any, tmp_path: Path, old: str, new: str, words: str
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(SMALL.replace(old, new))
    with pytest.raises(ValueError, match=words):
        script("plan").read_plan(path)


def test_a_comparison_with_no_run_is_refused_and_sets_that_are_missing_are_named(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "setpriority", lambda *_: None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    path = tmp_path / "small.yaml"
    path.write_text(SMALL.replace("against: [two]", "against: [nosuch]"))
    with pytest.raises(SystemExit, match="one is compared with nosuch, which no plan has"):
        script("evidence").main([str(path), "--data", str(tmp_path)])
    path.write_text(SMALL)
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    places = [f"--{name}={tmp_path / name}" for name in ("data", "runs", "results", "page")]
    script("evidence").main([str(path), *places])
    for n, handler in before.items():
        signal.signal(n, handler)
    assert f"{tmp_path / 'data' / 'set' / 'train'} is not there" in capsys.readouterr().out


def test_a_worker_that_outlives_its_queue_keeps_its_folder(script: Any, tmp_path: Path) -> None:
    evidence, page = script("evidence"), script("page")
    folder = tmp_path / "one-0"
    with evidence._alone(folder) as lock:
        words = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        worker = subprocess.Popen(words, stdin=subprocess.PIPE, pass_fds=[lock])
    with worker, evidence._alone(folder) as other:
        assert other is None
        assert page.is_running(folder)
        worker.communicate()
    with evidence._alone(folder) as other:
        assert other is not None
    assert not page.is_running(folder)


def test_damaged_results_and_changed_plans_are_said_and_nothing_is_written_over(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    queue, page = small(script, tmp_path, DONE), tmp_path / "EVIDENCE.md"
    while queue._next():
        pass
    queue.write_page(page)
    results = tmp_path / "results"
    (results / "one-0.json").write_text("<<<<<<< HEAD\n")
    two = json.loads((results / "two-0.json").read_text())
    (results / "two-0.json").write_text(json.dumps(two | {"settings": {"lr": 9.0}, "curve": [], "measured": {}}))
    (results / "twob-0.json").write_text(json.dumps(json.loads((results / "twob-0.json").read_text())))
    assert not queue._next()
    queue.write_page(page)
    out = capsys.readouterr()
    assert "one-0.json is no result (JSONDecodeError" in out.err
    assert (results / "one-0.json").read_text() == "<<<<<<< HEAD\n"
    assert "two-0: is another training than two-0.json, which stays" in out.out
    assert json.loads((results / "two-0.json").read_text())["measured"] == {}
    text = page.read_text()
    assert "4 of its 6 runs are finished. Not measured: two-0: knn." in text
    assert "Made when the plan said another: two-0 (settings)." in text


def test_the_page_is_written_when_a_run_begins(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    queue = small(script, tmp_path, f"from pathlib import Path\nprint(Path({str(tmp_path / 'E.md')!r}).read_text())")
    queue.page = tmp_path / "E.md"
    queue._next()
    assert "| small | one | 0 | running | 0 |  |  |" in (tmp_path / "runs" / "one-0" / "log.txt").read_text()
    queue.write_page(tmp_path / "E.md")
    assert "| small | one | 0 | stopped | 0 |  |  |" in (tmp_path / "E.md").read_text()


def test_the_conclusions_take_their_figures_from_the_results_and_nothing_unequal_is_compared(script: Any) -> None:
    def result(name: str, seed: int, right: int, **measured: Any) -> dict[str, Any]:
        accuracy = {"top1": 2.5 * right, "interval": [1.0, 9.0], "ranks": "0" * right + "3" * (40 - right)}
        return {"name": name, "seed": seed, "measured": {"knn": accuracy, **measured}, "measure": {"knn": {}}}

    kept = {f"{r['name']}-{r['seed']}": r for r in (result("a", 0, 30), result("b", 0, 10), result("a", 1, 9))}
    filled = script("figures").filled
    assert filled("{a-0 | knn}, {a − b | knn}", kept) == "75.0 [1.0, 9.0], **+50.0 [+31.1, +64.1]**"
    curve = [{"step": step, "images_per_second": 20.0 + step, "health": f"h{step}"} for step in range(1, 12)]
    shared = {"steps": 11, "curve": curve, "settings": {"batch_size": 52}, "hours": 3.0, "processor_hours": 2.0}
    shared["precision"] = "bf16"
    whole = {"a-0": kept["a-0"] | shared, "b-0": kept["b-0"] | shared | {"hours": 3.1}}
    whole["a-1"] = kept["a-1"] | shared | {"precision": "32"}
    facts = "steps", "seconds", "health"
    assert filled(" ".join(f"{{a-0 | {fact}}}" for fact in facts), whole) == "11 22 h2, h11"
    assert filled("{b-0 | seconds} {a-1 | seconds} {c-0 | steps}", whole) == "shared float32 "
    assert filled("{c-0 | knn}, {b − c | knn}, {a − b | linear}", kept) == ", ".join(["not measured"] * 3)
    kept["b-0"]["measure"] = {"knn": {"knn.k": 200}}
    assert filled("{a − b | knn}", kept) == "not measured"


def numbers(text: str) -> set[str]:
    return set(re.findall(r"[-+±]?\d+\.\d", text.replace("−", "-")))


def test_the_figures_of_the_readme_are_those_of_the_results(script: Any) -> None:
    page = script("page")
    text = (REPLICATION.parent.parent / "README.md").read_text(encoding="utf-8")
    shown = text[text.index("Measured with this program") : text.index("[All runs")]
    kept = {path.stem: page.read_result(path) for path in (REPLICATION / "results").glob("*.json")}
    found = {"64.0"}
    for result in kept.values():
        for name in result["measured"]:
            found |= numbers(script("figures").filled(f"{{{result['name']}-{result['seed']} | {name}}}", kept))
    for plan in (REPLICATION / "plans").glob("*.yaml"):
        found |= numbers(" ".join(page.comparisons(script("plan").read_plan(plan), kept)))
    assert len(numbers(shown)) > 20
    assert numbers(shown) <= found


def test_runs_go_on_where_the_page_cannot_be_written(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "setpriority", lambda *_: None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    queue = small(script, tmp_path, DONE)
    (tmp_path / "file").touch()
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    queue.work(tmp_path / "file" / "EVIDENCE.md")
    for n, handler in before.items():
        signal.signal(n, handler)
    assert len((tmp_path / "runs" / "order").read_text().split()) == 6
    assert "the page is not written (" in capsys.readouterr().out


def test_a_line_that_was_cut_short_is_left_out(script: Any, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"ste\n{"step": 2}\n{"st')
    assert script("page").records(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 2}]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A set of two classes of PNGs of 32 px: for training, 40 each, and for validation, 6 each."""
    for part, each in (("train", 40), ("val", 6)):
        for number, color in enumerate(["red", "blue"]):
            folder = tmp_path / "data" / "set" / part / color
            folder.mkdir(parents=True)
            for i in range(each):
                Image.new("RGB", (32, 32), (250 - i if number else i, i, 99)).save(folder / f"{i}.png")
    return tmp_path / "data"


TINY = {
    "backbone": "test_resnet", "epochs": 1, "batch_size": 8, "moco.queue_size": 16, "lr": 1.0, "views.global_size": 32,
    "views.local_size": 16, "log_every": 2, "probe.every_epochs": 60,
}  # fmt: skip


def given(images: Path, folder: Path, **more: Any) -> Path:
    """The folder of a run that is to be done."""
    run = {"plan": "p", "name": "one", "seed": 0, "recipe": "moco_cnn_baseline_64", "data": "set", "settings": TINY}
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"run": {**run, **more}, "data": str(images), "threads": 1}))
    return folder


def test_a_run_trains_and_leaves_its_curve_and_the_ranks_of_every_image(
    script: Any, images: Path, tmp_path: Path
) -> None:
    semi = {"image_size": 32, "semi.epochs": 1}
    measure = {"knn": {}, "linear": {"linear.mode": "fast"}, "semi 100 %": semi}
    folder = given(images, tmp_path / "runs" / "one-0", measure=measure)
    script("worker").main(folder)
    result = script("page").read_result(folder / "result.json")
    assert result["steps"] == 10
    assert [record["step"] for record in result["accuracies"]] == [0, 10]
    assert [record["step"] for record in result["curve"]] == [2, 4, 6, 8, 10]
    for name in measure:
        found = result["measured"][name]
        assert len(found["ranks"]) == found["images"] == 12
        assert found["top1"] == pytest.approx(100 * found["ranks"].count("0") / 12)
    assert result["processor_hours"] > 0
    assert not (folder / "features").exists()


def test_a_measurement_that_is_stopped_keeps_those_before_and_is_all_that_the_next_start_does(
    script: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, results = tmp_path / "runs", tmp_path / "results"
    measure = {"knn": {}, "linear": {"linear.mode": "fast"}}
    folder = given(images, runs / "one-0", measure=measure, code="untrained")
    worker = script("worker")
    with monkeypatch.context() as patched:
        patched.setattr(worker, "fit_logistic_regression", lambda *_, **__: sys.exit(143))
        with pytest.raises(SystemExit):
            worker.main(folder)
    run = script("plan").Run(**json.loads((folder / "run.json").read_text())["run"])
    plan = script("plan").Plan("p", "About.", (run,))
    queue = script("evidence").Queue([plan], data=images, runs=runs, results=results)
    queue.write_page(tmp_path / "EVIDENCE.md")
    assert json.loads((results / "one-0.json").read_text())["measured"].keys() == {"knn"}
    assert not queue.measured(run)
    monkeypatch.setattr(worker, "knn_classify", None)  # done before
    worker.main(folder)
    queue.write_page(tmp_path / "EVIDENCE.md")
    assert json.loads((results / "one-0.json").read_text())["measured"].keys() == measure.keys()
    assert queue.measured(run)
    assert not queue._next()


def test_a_result_names_no_folder_and_public_weights_are_tuned_as_such_before_training_too(
    script: Any, images: Path, tmp_path: Path
) -> None:
    save_file(build_backbone("test_resnet").state_dict(), images / "weights.safetensors")
    settings = TINY | {"init_from": "{data}/weights.safetensors"}
    tuned = {"data.subset": 0.5, "epochs": 1, "image_size": 32}
    measure = {"knn": {}, "finetune 50 %": tuned}
    folder = given(images, tmp_path / "runs" / "one-0", settings=settings, code="untrained", measure=measure)
    script("worker").main(folder)
    result = (folder / "result.json").read_text()
    config = yaml.safe_load((folder / "finetune-50-percent" / "config.yaml").read_text())
    assert (config["lr"], config["head_init"], config["freeze_norms"]) == (0.0003, "regression", True)  # not ours
    assert json.loads(result)["measured"]["finetune 50 %"]["images"] == 12
    assert json.loads(result)["settings"]["init_from"] == "{data}/weights.safetensors"
    assert str(tmp_path) not in result


@pytest.mark.parametrize(("share", "used"), [({}, 72), ({"data.subset": 0.25}, 18)])
def test_a_run_of_the_selection_never_sees_the_tenth_that_it_is_measured_on(
    script: Any, images: Path, tmp_path: Path, share: dict[str, Any], used: int
) -> None:
    more = {"held_out": True, "measure": {"knn": {}}, "code": "untrained", "settings": TINY | share}
    folder = given(images, tmp_path / "runs" / "one-0", **more)
    script("worker").main(folder)
    kept = set((folder / "images.txt").read_text().split())
    held = tmp_path / "runs" / ".held-out" / "set"
    drawn = {str(path.relative_to(held)) for path in held.rglob("*.png")}
    assert len(drawn) == 8
    assert len(kept) == used
    assert not kept & drawn
    assert json.loads((folder / "result.json").read_text())["measured"]["knn"]["images"] == 8


DINO_TINY = {key: value for key, value in TINY.items() if not key.startswith("moco")} | {
    "dino.head_output_dim": 32, "dino.head_hidden_dim": 16, "dino.head_bottleneck_dim": 8,
}  # fmt: skip


def test_the_teacher_is_measured_where_a_plan_says_so(script: Any, images: Path, tmp_path: Path) -> None:
    more = {"recipe": "dino_cnn_sslight_64", "settings": DINO_TINY}
    measure = {"knn": {"knn.k": 3}, "knn teacher": {"knn.k": 3, "network": "teacher"}}
    folder = given(images, tmp_path / "runs" / "one-0", measure=measure, **more)
    script("worker").main(folder)
    assert json.loads((folder / "result.json").read_text())["measured"].keys() == measure.keys()


def test_student_and_teacher_are_compared_with_statistics_as_trained_and_anew(
    script: Any, images: Path, tmp_path: Path
) -> None:
    measure = {"knn": {"knn.k": 3, "resize": 32}, "linear": {"linear.mode": "fast", "resize": 32}}
    more = {"recipe": "dino_cnn_sslight_64", "settings": DINO_TINY, "measure": measure}
    folder = given(images, tmp_path / "runs" / "one-0", **more)
    worker, exported = script("worker"), script("exported")
    worker.main(folder)
    run = script("plan").Run(**json.loads((folder / "run.json").read_text())["run"])
    lines = exported.table(run, folder, images).splitlines()
    result = json.loads((folder / "result.json").read_text())["measured"]
    assert lines[2] == f"| student, of training | {result['knn']['top1']:.1f} | {result['linear']['top1']:.1f} |"
    assert [line.split("|")[1].strip() for line in lines[3:]] == [
        "student, anew", "teacher, of training", "teacher, anew"
    ]  # fmt: skip
    assert all(line.count("[") == 2 for line in lines[3:])
    file = folder / "run" / "checkpoints" / "last.pt"
    module, seen = load_backbone(file), []
    bank, _ = worker.bank_and_queries(*worker.image_sets(run, images / "set", folder))
    exported.compute_statistics(module, bank, worker.transform_of(file, measure["knn"]))
    norm: Any = module.bn1
    hook = norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    extract_features(module, bank, worker.transform_of(file, measure["knn"]), Extraction())
    hook.remove()
    assert torch.cat(seen).mean((0, 2, 3)) == pytest.approx(norm.running_mean, abs=1e-3)


def test_candidates_of_every_kind_train_as_methods_of_their_own_and_only_within_their_runs(
    script: Any, images: Path, tmp_path: Path
) -> None:
    curves = {}
    dinos = ("sinkhorn", "joint-sinkhorn", "low-first", "global-first", "one-target", "entropy-0.4", "sigreg-0.02")
    mocos = ("smooth-0.1", "decoupled", "symmetric")
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        **dict.fromkeys(("", *dinos, "rising-color"), ("dino_cnn_sslight_64", DINO_TINY)),
        **dict.fromkeys(("moco", *mocos), ("moco_cnn_sslight_64", TINY)),
    }
    for name, (recipe, settings) in kinds.items():
        code = "sslight" if name in ("", "moco") else f"candidate {name}"
        given_run = given(images, tmp_path / "runs" / name, recipe=recipe, code=code, measure={}, settings=settings)
        script("worker").main(given_run)
        curve = script("page").read_result(given_run / "result.json")["curve"]
        curves[name] = tuple(record["loss"] for record in curve)
        assert all(math.isfinite(loss) for loss in curves[name])
    assert len(set(curves.values())) == len(curves)
    for name, method in (("sinkhorn", "moco"), ("smooth-0.1", "dino"), ("symmetric", "dino"), ("nosuch", "dino")):
        with pytest.raises(ValueError, match=f"no candidate {name} of {method}"):
            script("candidates").candidate(name, method).__enter__()


def test_candidates_give_the_targets_that_they_promise(script: Any) -> None:
    candidates = script("candidates")

    def dino() -> DINO:
        method = build_method(load_recipe("dino_cnn_sslight_64", {**DINO_TINY, "probe.knn": True}))
        assert isinstance(method, DINO)
        return method

    logits = 0.1 * torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(0))  # cosines
    for share in (0.4, 0.8):
        with candidates.candidate(f"entropy-{share}", "dino"):
            targets = dino().targets(logits, 0.04)
        entropy = torch.special.entr(targets).sum(-1).mean() / math.log(32)
        assert entropy == pytest.approx(share, abs=0.01)
    with candidates.candidate("sinkhorn", "dino"):
        used = dino().targets(logits + 3 * torch.arange(32) / 32, 0.5).mean((0, 1))
    assert used.max() / used.min() < 1.2
    plain = dino().targets(logits + 3 * torch.arange(32) / 32, 0.5).mean((0, 1))
    assert plain.max() / plain.min() > 20


def test_residual_branches_that_begin_at_zero_change_nothing(script: Any) -> None:
    settings = {"backbone": "mobilenetv3_small_050", "probe.knn": True}
    with script("candidates").candidate("zero-residuals", "dino"):
        method = build_method(load_recipe("dino_cnn_sslight_64", settings))
    blocks = [block for block in method.backbone.modules() if getattr(block, "has_skip", False)]
    assert len(blocks) > 3
    for block in blocks:
        assert isinstance(block, InvertedResidual)
        x = torch.randn(2, block.conv_pw.in_channels, 5, 5)
        torch.testing.assert_close(block.eval()(x), x)


def test_label_smoothing_of_moco_is_cross_entropy_with_spread_labels(script: Any) -> None:
    logits = torch.randn(3, 5, 9, generator=torch.Generator().manual_seed(0))
    target = torch.full((9,), 0.2 / 8)
    target[0] = 0.8
    wanted = -(logits.log_softmax(-1) * target).sum(-1).mean(-1)
    found = script("candidates").smoothed_pair_means(logits, share=0.2)
    torch.testing.assert_close(found.global_mean, wanted[0])
    torch.testing.assert_close(found.local_mean, wanted[1:].mean())


def test_the_decoupled_loss_of_moco_is_infonce_over_the_other_keys_alone(script: Any) -> None:
    logits = torch.randn(3, 5, 9, generator=torch.Generator().manual_seed(0))
    wanted = -(logits[..., 0] - logits[..., 1:].exp().sum(-1).log()).mean(-1)
    found = script("candidates").decoupled_pair_means(logits)
    torch.testing.assert_close(found.global_mean, wanted[0])
    torch.testing.assert_close(found.local_mean, wanted[1:].mean())


def test_symmetric_moco_is_the_mean_of_both_orders_of_the_global_views(script: Any) -> None:
    settings = {**TINY, "backbone": "test_vit", "probe.knn": True}  # no statistics of a batch
    one, other, local = (
        torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(size)) for size in (32, 33, 16)
    )
    other, local = other[..., :32, :32], torch.cat([local, -local])

    def loss(*order: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        method = build_method(load_recipe("moco_cnn_sslight_64", settings))
        output: StepOutput = method(torch.cat(order), local, StepValues(momentum=0.99))
        return output.loss

    plain, turned = loss(one, other), loss(other, one)
    with script("candidates").candidate("symmetric", "moco"):
        torch.testing.assert_close(loss(one, other), (plain + turned) / 2)


def test_one_target_in_turn_has_the_loss_of_both_in_the_mean(script: Any) -> None:
    more = {"backbone": "test_vit", "dino.head_batch_norm": False, "probe.knn": True}
    settings = {**DINO_TINY, **more}  # no statistics of a batch

    def losses(number: int) -> list[torch.Tensor]:
        torch.manual_seed(0)
        method = build_method(load_recipe("dino_cnn_sslight_64", settings))
        views = torch.randn(2 * 4, 3, 32, 32), torch.randn(2 * 4, 3, 16, 16)
        return [method(*views, StepValues(momentum=0.99, teacher_temp=0.04)).loss for _ in range(number)]

    (both,) = losses(1)
    with script("candidates").candidate("one-target", "dino"):
        first, second = losses(2)
    assert first != second
    torch.testing.assert_close((first + second) / 2, both)


def test_a_curriculum_begins_with_its_easy_views_and_ends_with_its_hard_ones(script: Any) -> None:
    candidates, views = script("candidates"), load_recipe("dino_cnn_sslight_64").views
    pretraining: Any = importlib.import_module("sslight.api.pretrain")
    with candidates.candidate("rising-scale", "dino"):
        crops = pretraining.build_multi_crop(views)
    own = build_multi_crop(views)
    assert crops.draw(64, 64, (0, 10, 5)).boxes.tolist() == own.draw(64, 64, (0, 10, 5)).boxes.tolist()
    shares = [
        np.mean([crops.draw(64, 64, (0, epoch, index)).boxes[:2, 2:].prod(1).mean() / 64**2 for index in range(200)])
        for epoch in (0, 5, 10, 19)
    ]
    assert shares[0] > shares[1] + 0.05 > shares[2] + 0.1
    assert shares[3] == pytest.approx(shares[2], abs=0.03)
    with candidates.candidate("rising-color", "dino"):
        crops = pretraining.build_multi_crop(views)
    changed = [np.mean([crops.draw(64, 64, (0, epoch, i)).jitter.mean() for i in range(200)]) for epoch in (0, 5, 10)]
    assert changed == pytest.approx([0.0, 0.4, 0.8], abs=0.07)


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_queue_leaves_a_checkpoint_from_which_the_next_goes_on(
    images: Path, tmp_path: Path, kill: signal.Signals
) -> None:
    plan = tmp_path / "tiny.yaml"
    long = {**TINY, "epochs": 60}
    plan.write_text(json.dumps({
        "about": "Tiny.", "data": "set", "runs": [{"name": "one", "recipe": "moco_cnn_baseline_64", "settings": long}]
    }))  # fmt: skip
    words = [sys.executable, str(REPLICATION / "evidence.py"), str(plan), "--data", str(images)]
    for name in ("runs", "results"):
        words += [f"--{name}", str(tmp_path / name)]
    words += ["--page", str(tmp_path / "EVIDENCE.md")]
    folder = tmp_path / "runs" / "one-0"
    metrics = folder / "run" / "metrics.jsonl"

    def steps() -> int:
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        return max((json.loads(line)["step"] for line in lines), default=0)

    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as queue:
        while steps() < 20:
            assert queue.poll() is None
            time.sleep(0.05)
        queue.send_signal(kill)
    for _ in range(200):  # the worker of a killed queue ends by itself
        if "stopped by SIGTERM" in (folder / "log.txt").read_text():
            break
        time.sleep(0.1)
    assert "stopped by SIGTERM" in (folder / "log.txt").read_text()
    assert not (folder / "result.json").exists()
    assert (folder / "run" / "checkpoints" / "last.pt").exists()
    assert subprocess.run(words, check=False, stdout=subprocess.DEVNULL).returncode == 0
    result = json.loads((tmp_path / "results" / "one-0.json").read_text())
    assert result["steps"] == 600
    assert result["sessions"] == 2
    assert "| one | 0 |" in (tmp_path / "EVIDENCE.md").read_text()
    with Image.open(tmp_path / "EVIDENCE.png") as picture:
        assert picture.width > 1000


def test_what_foretells_the_final_knn_is_found_at_a_tenth_of_each_run_and_only_in_groups(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    final = [12.0, 15.0, 11.0, 14.0, 13.0, 16.0, 10.0]
    files = []
    for number, knn in enumerate(final):
        steps = range(10, 1001, 10)
        entropy = {step: 0.5 + (knn / 100 if 90 <= step <= 110 else -knn / 100) for step in steps}
        curve = [
            {"step": step, "teacher_entropy": entropy[step], "feature_spread": 0.9, "divergence": number, "loss": 1.0}
            for step in steps
        ]
        accuracies = [{"step": 0, "knn_top1": 5.0}, {"step": 200, "knn_top1": 5.0 + 2 * (20 - knn)}]
        result = {
            "plan": "first",
            "data": "set",
            "recipe": "dino_cnn_sslight_64",
            "settings": {},
            "steps": 1000,
            "code": "sslight",
            "seed": number % 2,
        }
        knn += 100 * (number % 2)  # another seed: all of it is 100 points better, and means nothing
        result |= {
            "curve": curve,
            "accuracies": accuracies,
            "measured": {"knn": {"top1": knn}, "linear": {"top1": -knn}},
        }
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(result))
        (tmp_path / f"other-{number}.json").write_text(
            json.dumps(result | {"settings": {"backbone": f"alone-{number}"}})
        )
        (tmp_path / f"longer-{number}.json").write_text(json.dumps(result | {"steps": 5000 * 4**number}))
    monkeypatch.setattr(sys, "argv", ["indicators.py", *map(str, sorted(tmp_path.glob("*.json")))])
    indicators = script("indicators")
    assert indicators.figures(json.loads(files[0].read_text()))["gain"] == pytest.approx(8.0)  # half of 16
    indicators.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("**")] == [
        "**set, 1 of it, dino, mobilenet_v2, about 1,024 steps**: 7 runs"
    ]
    assert "| teacher_entropy | +1.00 [+1.00, +1.00] | -1.00 [-1.00, -1.00] |" in lines
    assert "| gain | -1.00 [-1.00, -1.00] | +1.00 [+1.00, +1.00] |" in lines
    loss = next(line for line in lines if line.startswith("| divergence "))
    assert -0.6 < float(loss.split("|")[2].split()[0]) < 0.6
    assert not any(line.startswith("| feature_spread ") for line in lines)  # it is the same in all
