"""``sslight evaluate`` and ``sslight compare`` as typed: results, and one sentence for each wrong input."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from sslight.backbones import build_backbone, save_backbone
from sslight.backbones.cpu import layers as cpu_layers
from sslight.config import EvaluateSettings, build, parse_assignments, setting_keys
from tests.cli.test_bad_input import run
from tests.cli.test_commands import output_of

WORDS = {
    "data.train": "synthetic:60",
    "data.val": "synthetic:30:val",
    "image_size": "32",
    "devices": "cpu",
    "knn.k": "[1, 5]",
    "output": "{tmp}/result",
    "cache": "{tmp}/cache",
}


def words(tmp_path: Path, changes: dict[str, str | None]) -> list[str]:
    merged = {key: value for key, value in (WORDS | changes).items() if value is not None}
    return [f"{key}={value}".replace("{tmp}", str(tmp_path)) for key, value in merged.items()]


def test_a_result_is_shown_written_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output_of(monkeypatch, capsys, "evaluate", "knn", "timm:test_resnet", *words(tmp_path, {}))
    for part in (
        "60 training, 30 validation, 10 classes, 32 px",
        "untrained, weights drawn with seed 0",
        "k = 5",
        "top-5",
    ):
        assert part in text
    changes = {"output": "{tmp}/fast", "knn.k": None, "linear.mode": "fast"}
    found = json.loads(
        output_of(monkeypatch, capsys, "evaluate", "linear", "timm:test_resnet", "--json", *words(tmp_path, changes))
    )
    assert json.loads(Path(found.pop("path")).read_text(encoding="utf-8")) == found
    folders = [str(tmp_path / name) for name in ("result", "fast")]
    table = output_of(monkeypatch, capsys, "compare", *folders).splitlines()
    assert [line.count("|") for line in table[:4]] == [8, 8, 8, 8]
    assert table[-1].endswith("no protocol was measured on the same images on both sides.")
    assert "knn, k = 5" in table[2]
    rows = json.loads(output_of(monkeypatch, capsys, "compare", "--json", *folders))
    assert [row["origin"] for row in rows["rows"]] == ["measured", "measured"]


def test_bf16_is_warned_of_where_the_processor_is_slow_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cpu_layers, "bf16_is_fast_on_cpu", lambda: False)
    monkeypatch.setattr(cpu_layers, "onednn_computes_bf16", lambda: False)
    run(monkeypatch, "evaluate", "knn", "timm:test_resnet", "precision=bf16", *words(tmp_path, {}))
    assert capsys.readouterr().err.count("precision=bf16 is several times slower than 32") == 1


def test_settings_of_evaluations_are_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    everything = json.loads(output_of(monkeypatch, capsys, "config", "evaluate", "--json"))
    assert [each["key"] for each in everything] == [f"evaluate.{key}" for key in setting_keys(EvaluateSettings)]
    text = output_of(monkeypatch, capsys, "config", "evaluate.knn.temperature")
    assert "Temperature of the votes" in text
    assert "default: 0.07" in text
    assert "evaluate.semi.head" in output_of(monkeypatch, capsys, "config", "evaluate.semi")


@pytest.mark.parametrize(
    ("protocol", "checkpoint", "changes", "sentence"),
    [
        ("knn", "timm:test_resnet", {"data.val": None}, "data.val is not set: give labeled images"),
        ("knn", "timm:test_resnet", {"data.train": "{tmp}/flat"}, "so it has no labels; use one sub-folder"),
        ("knn", "timm:test_resnet", {"data.train": "{tmp}/single"}, "all images in one sub-folder (a)"),
        (
            "knn",
            "timm:test_resnet",
            {"data.train": "{tmp}/ab", "data.val": "{tmp}/abc"},
            "abc: 1 of 3 classes are not among the 2 training classes (first: c)",
        ),
        (
            "knn",
            "timm:test_resnet",
            {"knn.k": "[1, 200]"},
            "knn.k=200 neighbors are more than the 60 training images",
        ),
        (
            "knn",
            "timm:test_resnet",
            {"data.train": "{tmp}/broken", "data.val": "{tmp}/broken", "knn.k": "1"},
            "no readable image among the",
        ),
        ("knn", "timm:test_resnet", {"data.subset": "{tmp}/list.txt"}, "nobody.jpg"),
        ("knn", "timm:mobilnet_v2", {}, "the nearest names are mobilenet_v2"),
        ("knn", "timm:test_resnet@{tmp}/vit.safetensors", {}, "are not those of test_resnet: 0 of"),
        ("knn", "{tmp}/bad.safetensors", {}, "do not fit the backbone ResNet"),
        ("knn", "{tmp}/nowhere.pt", {}, "there is no file"),
        ("knn", "{tmp}/broken.safetensors", {}, "not finite numbers"),
        ("knn", "timm:test_resnet", {"output": "{tmp}/used"}, "already holds results.json: choose another folder"),
        ("knn", "timm:test_resnet", {"output": "{tmp}/list.txt"}, "list.txt cannot be written (File exists)"),
        ("knn", "timm:test_resnet", {"cache": "/proc/features"}, "cache=/proc/features cannot be written"),
        ("knn", "timm:test_resnet", {"resize": "16"}, "resize=16 is smaller than image_size=32"),
        ("knn", "timm:test_vit", {"image_size": "30"}, "image_size=30 is not a multiple of the patch side"),
        ("knn", "timm:test_resnet", {"knn.neighbours": "3"}, "knn.neighbours is not a setting"),
        ("knn", "timm:test_resnet", {"data.validation": "x"}, "did you mean data.val"),
        ("knn", "timm:test_resnet", {"semi.epochs": "3"}, "semi.epochs=3 would have no effect"),
        ("knn", "timm:test_resnet", {"network": "teacher"}, "a timm model is one network"),
        ("knnn", "timm:test_resnet", {"knn.k": None}, "knnn is not a protocol: did you mean knn?"),
        (
            "linear",
            "timm:test_resnet",
            {"knn.k": None, "linear.last_blocks": "4"},
            "linear.last_blocks=4 needs a ViT with a class token",
        ),
        (
            "semi",
            "timm:test_resnet",
            {"knn.k": None, "cache": None, "semi.head": "projection"},
            "semi.head=projection needs the DINO projection head",
        ),
    ],
)
def test_a_wrong_input_ends_in_one_sentence(
    protocol: str,
    checkpoint: str,
    changes: dict[str, str | None],
    sentence: str,
    tmp_path: Path,
    image_folder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, classes in (("flat", ()), ("single", ("a",)), ("ab", ("a", "b")), ("abc", ("a", "b", "c"))):
        image_folder(name, classes, each=3)
    for label in "ab":
        folder = tmp_path / "broken" / label
        folder.mkdir(parents=True)
        (folder / "0.jpg").write_bytes(b"no picture")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "results.json").write_text("{}", encoding="utf-8")
    (tmp_path / "list.txt").write_text("nobody.jpg\n", encoding="utf-8")
    write_weights(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    code = run(monkeypatch, "evaluate", protocol, checkpoint.replace("{tmp}", str(tmp_path)), *words(tmp_path, changes))

    out, err = capfd.readouterr()
    assert code == 2
    *notices, last = err.splitlines()
    assert last.startswith("sslight: ")
    assert sentence in last
    assert all(notice.startswith(("data.train: ", "data.val: ")) for notice in notices)
    assert out == ""
    assert [path for path in sorted(tmp_path.rglob("*")) if path != tmp_path / "cache"] == before


def write_weights(folder: Path) -> None:
    """Weights of another network than the file says, weights that are not numbers, and a whole ViT."""
    for name, architecture in (("bad", "test_resnet"), ("broken", "test_resnet"), ("vit", "test_vit")):
        backbone = build_backbone(architecture)
        if name == "broken":
            torch.nn.init.constant_(next(backbone.parameters()), float("nan"))
        if name == "vit":
            safetensors.torch.save_file(backbone.state_dict(), folder / "vit.safetensors")
            continue
        said = "resnet18" if name == "bad" else architecture
        save_backbone(
            backbone,
            folder / f"{name}.safetensors",
            name=said,
            image_size=32,
            patch_size=None,
            mean=(0.5, 0.5, 0.5),
            std=(0.2, 0.2, 0.2),
        )


def test_a_run_folder_is_measured_by_its_export_and_files_go_beside_it_and_to_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (run_folder / "config.yaml").touch()
    about: dict[str, Any] = {"image_size": 32, "patch_size": None, "mean": (0.5,) * 3, "std": (0.2,) * 3}
    save_backbone(build_backbone("test_resnet"), run_folder / "backbone.safetensors", name="test_resnet", **about)
    monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", str(tmp_path / "home"))
    assert run(monkeypatch, "evaluate", "knn", str(run_folder), *words(tmp_path, {"output": None, "cache": None})) == 0
    assert f"of {run_folder}: {run_folder}/backbone.safetensors" in capsys.readouterr().err
    assert len(list((run_folder / "evaluation").glob("knn-????????/results.json"))) == 1
    assert len(list((tmp_path / "home" / "sslight" / "features").iterdir())) == 2
    assert "| measured here | test_resnet |" in output_of(monkeypatch, capsys, "compare", str(run_folder))


def test_results_in_the_folder_that_one_stands_in_are_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, "evaluate", "knn", "timm:test_resnet", *words(tmp_path, {"output": None, "knn.k": None}))
    captured = capsys.readouterr()
    said = captured.err.index("in the current folder; output=FOLDER chooses another")
    assert said < captured.err.index("features of data.train")
    assert "k = 20" in captured.out
    assert "note: k = 100 and 200 left out: there are only 60 training images." in captured.out + captured.err


def test_compare_takes_results_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "compare", str(tmp_path)) == 2
    assert "results.json cannot be read" in capfd.readouterr().err
    for wrong in (["a", "vs"], ["vs", "b"], ["a", "vs", "b", "vs", "c"]):
        assert run(monkeypatch, "compare", *wrong) == 2
        assert "name results on both sides of one vs" in capfd.readouterr().err


@pytest.mark.parametrize("page", ["README.md", "docs/evaluation.md"])
def test_what_the_pages_tell_people_to_type_resolves(page: str) -> None:
    text = (Path(__file__).parents[3] / page).read_text(encoding="utf-8")
    lines = (line.split() for line in text.splitlines() if line.startswith("sslight evaluate "))
    commands = [words for words in lines if words[2] != "detect"]
    assert [words[2] for words in commands] == ["knn", "linear", "linear", "semi"]
    for _, _, protocol, checkpoint, *assignments in commands:
        settings = build(
            EvaluateSettings, parse_assignments(assignments, EvaluateSettings), protocol=protocol, model=checkpoint
        )
        assert settings.data.val == ["VAL"]
