"""``sslight plan`` and ``sslight pretrain auto`` as typed."""

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sslight.api import plan as planning
from sslight.api.pretrain import pretrain
from sslight.backbones import build_backbone, save_backbone
from sslight.cli.main import main
from sslight.config import PretrainSettings, flat_settings, load_recipe, parse_assignments, to_yaml
from sslight.data import Source, SyntheticSource
from sslight.pretraining import planner
from sslight.pretraining.memory import Memory
from sslight.train import Callback, RunFolder, TrainingStopped

TRAIN = "data.train=synthetic:40"
SMALL = [
    "backbone=test_resnet", "batch_size=8", "views.global_size=32", "workers=0", "devices=cpu", "precision=32",
    "logger=none", "dino.head_hidden_dim=16", "dino.head_bottleneck_dim=8", "dino.head_output_dim=32",
]  # fmt: skip


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "_CALIBRATION_SECONDS", 0.1)
    monkeypatch.delenv("SSLIGHT_PLANNED_SETTINGS", raising=False)


def sslight(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0
) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["sslight", *words])
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr()
    assert (end.value.code or 0) == code, printed.err
    return [printed.out, printed.err]


def test_auto_shows_its_choices_trains_and_leaves_settings_that_repeat_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    words = ["pretrain", "auto", TRAIN, f"output={output}", "epochs=1", "data.val=synthetic:10:val", *SMALL]
    _, said = sslight(monkeypatch, capsys, *words)
    rows = {row[0]: row[1] for line in said.splitlines() if len(row := line.strip().split(maxsplit=1)) == 2}
    assert rows["batch_size"].split(maxsplit=1) == ["8", "as you set it"]
    assert rows["views.local_size"].startswith("20 ")
    assert "GiB free" in rows["machine"]
    assert (output / "backbone.safetensors").is_file()
    assert (output / "checkpoints" / "best.pt").is_file()
    config = str(output / "config.yaml")
    again = load_recipe(config)
    assert again.views.local_size == 20
    assert (again.optim.warmup_epochs, again.epochs) == (0.05, 1)
    twice = tmp_path / "twice"
    sslight(monkeypatch, capsys, "pretrain", config, f"output={twice}")
    first, second = (load_file(folder / "backbone.safetensors") for folder in (output, twice))
    assert all(torch.equal(second[name], weights) for name, weights in first.items())
    resumed, plan = planning.auto_settings(parse_assignments([*words[2:], "resume=true"]), None)
    assert plan is None
    RunFolder(output).check(resumed)  # the same settings
    assert planning.PLANNED not in os.environ


def test_a_plan_is_printed_saved_and_runs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    output, saved = tmp_path / "run", tmp_path / "plan.yaml"
    small = [word.replace("precision=32", "precision=auto") for word in SMALL]
    words = ["plan", "synthetic:40", "hours=0.01", f"output={output}", *small, f"save={saved}", "--json"]
    plan = json.loads(sslight(monkeypatch, capsys, *words)[0])
    assert not output.exists()
    assert plan["seconds"] < 36
    assert plan["images"]["num_images"] == 40
    assert plan["settings"]["precision"] in ("32", "bf16")  # what it counts with, and what the run will do
    assert {"setting", "value", "because"} == set(plan["choices"][0])
    assert load_recipe(str(saved)).model_dump(mode="json") == plan["settings"]


@pytest.mark.parametrize("setting", ["swav.head_hidden_dim=16", "moco.queue_size=16"])
def test_a_setting_of_a_method_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], setting: str
) -> None:
    words = ["plan", "synthetic:40", setting, *(word for word in SMALL if not word.startswith("dino.")), "--json"]
    plan = json.loads(sslight(monkeypatch, capsys, *words)[0])
    assert plan["settings"]["method"] == setting.partition(".")[0]


def test_a_plan_counts_every_measurement_of_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = []

    def a_hundred_seconds(bank: Source, queries: Source | None, settings: PretrainSettings) -> float:
        measured.append((len(bank), None if queries is None else len(queries), settings.views.global_size))
        return 100.0

    words = ["plan", "synthetic:40", *SMALL, "epochs=4", "probe.every_epochs=2", "data.val=synthetic:10:val", "--json"]
    monkeypatch.setattr(planning, "_seconds_to_measure", a_hundred_seconds)
    seconds = json.loads(sslight(monkeypatch, capsys, *words)[0])["seconds"]
    assert measured == [(40, 10, 32)]
    assert 500 < seconds < 600  # before, after two epochs, at the end, and the linear ones before and at the end


def test_a_measurement_is_timed_on_some_of_its_images() -> None:
    settings = load_recipe("dino_cnn_sslight_64", {"backbone": "test_resnet", "devices": "cpu", "optim.min_lr": 0})
    small, large = (SyntheticSource(number, size=32, labeled=True) for number in (40, 4_000))
    timed = planning._seconds_to_measure
    alone, together = timed(small, None, settings), timed(small, large, settings)
    assert 0 < alone < together


def test_a_plan_goes_on_from_weights_with_their_network_and_normalization(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    half = [0.5, 0.5, 0.5]
    weights = tmp_path / "weights.safetensors"
    save_backbone(
        build_backbone("test_resnet"), weights, name="test_resnet", image_size=32, patch_size=None, mean=half, std=half
    )
    small = [word for word in SMALL if not word.startswith("backbone")]
    words = ["plan", "synthetic:40", f"init_from={weights}", *small, "--json"]
    plan = json.loads(sslight(monkeypatch, capsys, *words)[0])
    assert plan["settings"]["backbone"] == "test_resnet"
    assert plan["settings"]["views"]["mean"] == half
    assert plan["settings"]["freeze_norms"]
    further = [word for word in words if not word.startswith("dino.") and word != "synthetic:40"]
    plan = json.loads(sslight(monkeypatch, capsys, *further, "synthetic:400", "method=moco")[0])
    assert plan["settings"]["freeze_backbone_epochs"] == 0.3  # longer than the steps that were timed
    _, said = sslight(monkeypatch, capsys, *words, "backbone=resnet18", code=2)
    assert "is of backbone=test_resnet: set that" in said
    bare = tmp_path / "bare.safetensors"
    network = "test_vit"  # of which timm's weights have other means than ImageNet's
    save_file(build_backbone(network).state_dict(), bare)
    words[2] = f"init_from={bare}"
    assert "does not say of which network it is: set backbone=NAME" in sslight(monkeypatch, capsys, *words, code=2)[1]
    plan = json.loads(sslight(monkeypatch, capsys, *words, f"backbone={network}", "views.local_size=16")[0])
    assert plan["settings"]["views"]["mean"] == [0.485, 0.456, 0.406]
    assert "does not say its views.mean: timm's weights of test_vit have [0.5, 0.5, 0.5]" in " ".join(plan["notes"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["auto", TRAIN], "output is not set"),
        (["auto", "output=OUT"], "data.train is not set"),
        (["auto", "data.train=EMPTY", "output=OUT"], "no images"),
        (["auto", TRAIN, "output=OUT", "hours=8", "steps=10"], "hours=8 and steps=10 are both given: keep one"),
        (["auto", TRAIN, "output=OUT", "hours=0"], "hours=0"),
        (["auto", TRAIN, "output=OUT", "hours=1e-9", *SMALL], "hours=1e-09 is too short for one epoch of 40 images"),
        (["auto", TRAIN, "output=OUT", "backbone=mobilenet_v9"], "the nearest names are"),
        (["dino_cnn_sslight", TRAIN, "output=OUT", "hours=8"], "hours=8 works with auto"),
        (["auto", TRAIN, "output=FULL"], "is not empty"),
    ],
)
def test_what_cannot_be_planned_ends_in_a_sentence(
    words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("EMPTY", "FULL"):
        (tmp_path / name).mkdir()
    (tmp_path / "FULL" / "file").touch()
    monkeypatch.chdir(tmp_path)
    _, said = sslight(monkeypatch, capsys, "pretrain", *words, code=2)
    assert sentence in said
    assert not (tmp_path / "OUT").exists()


def test_memory_for_less_than_two_images_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(planning, "free_for_each", lambda *_: 100 << 20)
    words = [word for word in SMALL if not word.startswith("batch_size")]
    _, said = sslight(monkeypatch, capsys, "pretrain", "auto", TRAIN, f"output={tmp_path / 'run'}", *words, code=2)
    assert "not even 2 images fit" in said


@pytest.mark.parametrize(
    "given",
    [{"views.local_size": 96, "views.global_size": 224}, {"optim.warmup_epochs": 30}, {"lr": 0.03}, {"steps": None}],
)
def test_what_is_given_is_judged_by_the_plan_alone(given: dict[str, Any]) -> None:
    small = parse_assignments(word for word in SMALL if not word.startswith("views."))
    length = {"epochs": 60} if "optim.warmup_epochs" in given else {}
    found = planning.plan({"data.train": "synthetic:40", **small, **length, **given})
    assert all(flat_settings(found.settings.model_dump())[name] == value for name, value in given.items() if value)


def test_a_run_in_the_home_folder_is_continued(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given = {"data.train": "synthetic:40", "output": "~/run", "epochs": 3}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(load_recipe("dino_cnn_sslight_64", given)), encoding="utf-8")
    settings, found = planning.auto_settings({**given, "resume": "auto"}, None)
    assert (found, settings.epochs) == (None, 3)


def test_hours_are_not_passed_over_where_a_run_is_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    given = {"data.train": "synthetic:40", "output": str(run), "epochs": 3}
    run.mkdir()
    (run / "config.yaml").write_text(to_yaml(load_recipe("dino_cnn_sslight_64", given)), encoding="utf-8")
    del given["epochs"]
    what = f"hours=8 has no effect on the run in {run}, whose length was set when it began"
    with pytest.raises(ValueError, match=f"^{what}: leave hours out\\.$"):
        planning.auto_settings({**given, "resume": True}, 8)
    settings, _ = planning.auto_settings({**given, "resume": "auto"}, 8)  # each restart is the same command
    assert settings.epochs == 3
    assert capsys.readouterr().err == f"{what} (epochs=3)\n"


def test_a_planned_run_that_is_stopped_says_how_to_continue_and_leaves_no_plan_behind(tmp_path: Path) -> None:
    stop = Callback(on_log=lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    given = {**parse_assignments([TRAIN, *SMALL]), "output": tmp_path / "run", "hours": 0.01, "log_every": 1}
    with pytest.raises(TrainingStopped, match=r"the same command with resume=true \(and no hours\) continues\.$"):
        pretrain("auto", given, callbacks=[stop])
    assert planning.PLANNED not in os.environ


def test_a_plan_overwrites_no_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("mine", encoding="utf-8")
    for path, sentence in (("mine.yaml", "exists: name another file"), ("none/x.yaml", "there is no folder")):
        _, said = sslight(monkeypatch, capsys, "plan", "synthetic:40", f"save={tmp_path / path}", *SMALL, code=2)
        assert sentence in said
    assert (tmp_path / "mine.yaml").read_text(encoding="utf-8") == "mine"


def test_many_processes_run_one_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "launcher", lambda: "torchrun")
    with pytest.raises(ValueError, match=r"plan once before, with `sslight plan IMAGES \.\.\. save=plan.yaml`"):
        planning.plan({"data.train": "synthetic:40"})
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("SSLIGHT_PLANNED_SETTINGS", "batch_size: 8\nepochs: 30\n")
    settings, plan = planning.auto_settings({"data.train": "synthetic:40"}, None)
    assert plan is None
    assert (settings.batch_size, settings.epochs) == (8, 30)


@pytest.mark.parametrize(
    ("images", "words", "sentence"),
    [
        (1, [], "data.train holds 1 image: at least 2 are needed."),
        (
            40,
            ["batch_size=1000000"],
            "batch_size=1000000 is more than the 40 images of data.train; set batch_size to at ",
        ),
        (40, ["batch_size=32", "grad_checkpointing=false"], "leave out batch_size, so that what fits is chosen."),
    ],
)
def test_remedies_of_a_plan_can_be_followed(
    images: int,
    words: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = Memory(fixed=0.0, per_image=1e9, norms=1e9, lean=None, buffered=0.0)
    monkeypatch.setattr(planner, "predict_memory", lambda *_: few)
    monkeypatch.setattr(planning, "free_for_each", lambda *_: 4_000_000_000)
    small = [word for word in SMALL if not word.startswith("batch_size")]
    assert sentence in sslight(monkeypatch, capsys, "plan", f"synthetic:{images}", *small, *words, code=2)[1]


def test_a_command_in_a_note_can_be_copied_if_the_path_has_a_blank(
    monkeypatch: pytest.MonkeyPatch, image_folder: Callable[..., Path]
) -> None:
    monkeypatch.setattr(planner, "_LARGE_MEGAPIXELS", 0)
    images, small = image_folder("my images", each=16), parse_assignments(SMALL)
    more = image_folder("more", each=16)
    for train, word in (([images], str(images)), ([images, more], f"[{images}, {more}]")):
        notes = planning.plan({"data.train": train, **small}).notes
        (command,) = [note.split("`")[1] for note in notes if "data pack" in note]
        assert shlex.split(command)[3] == word
