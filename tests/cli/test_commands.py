"""The commands as typed: what they print, as text and as JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sslight
from sslight.cli.main import main
from sslight.config import recipe_names, setting_keys
from tests.conftest import TINY


def output_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    monkeypatch.setattr(sys, "argv", ["sslight", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code or 0) == code
    return capsys.readouterr().out


def tiny_words(**changes: str) -> list[str]:
    return [f"{key}={value}" for key, value in ({k: str(v) for k, v in TINY.items()} | changes).items()]


def test_recipes_are_listed_with_their_headers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output_of(monkeypatch, capsys, "recipes")
    for name in recipe_names():
        assert f"\n{name}\n" in "\n" + text
    assert "MobileNetV2 68.3, ResNet-18 65.7, ResNet-34 69.7" in text
    listed = json.loads(output_of(monkeypatch, capsys, "recipes", "--json"))
    assert [recipe["name"] for recipe in listed] == recipe_names()


def test_one_recipe_is_printed_as_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = output_of(monkeypatch, capsys, "recipes", "dino_cnn_sslight")
    assert "inherits: dino_cnn_baseline\nglobal_pair_weight: 0.4\n" in text
    values = json.loads(output_of(monkeypatch, capsys, "recipes", "dino_cnn_sslight", "--json"))["values"]
    assert values["lr"] == 0.48


def test_a_setting_is_explained(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = output_of(monkeypatch, capsys, "config", "views.local_size")
    for part in ("Side of a local view", "unit:    px", "default: 96", "try:     128 at 224 px"):
        assert part in text
    everything = json.loads(output_of(monkeypatch, capsys, "config", "--json"))
    assert [setting["key"] for setting in everything] == setting_keys()
    table = output_of(monkeypatch, capsys, "config", "probe")
    assert "probe.knn_k" in table


def test_an_unknown_setting_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sslight", "config", "view.local_size"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "view.local_size is not a setting: did you mean views.local_size" in capsys.readouterr().err


def test_the_result_is_a_table_with_a_snippet_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tiny_words(output=str(tmp_path / "run"), **{"data.val": "synthetic:20:val"})
    text = output_of(monkeypatch, capsys, "pretrain", "dino_cnn_sslight_64", *words)
    assert "kNN accuracy" in text
    assert "20 validation images against 40 training images" in text
    assert f" {tmp_path / 'run' / 'report.html'}\n" in text  # a long path is not cut
    assert ">untrained</div>" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    snippet = [line.strip() for line in text.split("Use it in Python:\n")[1].splitlines()]
    import torch

    names: dict[str, object] = {"images": torch.zeros(2, 3, 64, 64)}
    exec("\n".join(snippet), names)
    features = names["features"]
    assert isinstance(features, torch.Tensor)
    assert f"[B, {features.shape[1]}]" in text


def test_json_goes_to_standard_output_and_progress_to_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = tiny_words(output=str(tmp_path / "run"))
    monkeypatch.setattr(sys, "argv", ["sslight", "pretrain", "dino_cnn_sslight_64", "--json", *words])
    with pytest.raises(SystemExit):
        main()
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert Path(result["backbone"]).is_file()
    assert [Path(page).is_file() for page in result["report"]] == [True]
    assert result["training"]["steps"] == 4
    assert "teacher entropy" in err


def test_the_module_runs_as_a_program_and_python_takes_the_same_names(tmp_path: Path) -> None:
    words = tiny_words(output=str(tmp_path / "program"))
    subprocess.run(
        [sys.executable, "-m", "sslight", "pretrain", "dino_cnn_sslight_64", *words],
        check=True,
        capture_output=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    result = sslight.pretrain(
        "dino_cnn_sslight_64",
        {key: value for key, value in TINY.items() if not key.startswith("views.")},
        output=tmp_path / "python",
        views={"num_local": 2, "global_size": 32, "local_size": 16},
    )
    program, python = (
        sslight.load_backbone(tmp_path / name / "backbone.safetensors").state_dict() for name in ("program", "python")
    )
    assert result.backbone == tmp_path / "python" / "backbone.safetensors"
    assert program.keys() == python.keys()


def test_the_version_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert output_of(monkeypatch, capsys, "--version").strip() == sslight.__version__


def test_commands_that_need_no_network_do_not_import_torch() -> None:
    code = "import sys, sslight, sslight.cli.main; sys.exit('torch' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_bench_prints_a_table_or_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    of_runs = ("steps=", "output=", "log", "optim.warmup_")
    tiny = [word for word in tiny_words() if not word.startswith(of_runs)]
    words = ("bench", "step", "dino_cnn_sslight_64", *tiny)
    text = output_of(monkeypatch, capsys, *words, "steps=1")
    for part in ("images/s", "student forward", "teacher update", "peak memory", "bottleneck"):
        assert part in text
    values = json.loads(output_of(monkeypatch, capsys, *words, "steps=1", "--json"))
    assert values["batch_size"] == 8
    loaded = [word for word in tiny if word.startswith(("data.", "views.", "batch_size", "workers"))]
    words = ("bench", "loader", "dino_cnn_sslight_64", *loaded, "seconds=1")
    assert "of bare decoding" in output_of(monkeypatch, capsys, *words)
    assert json.loads(output_of(monkeypatch, capsys, *words, "--json"))["images"] > 0


def test_bench_without_images_ends_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sslight", "bench", "loader", "dino_cnn_sslight_64"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "data.train is empty: set it to" in capsys.readouterr().err
