"""What the Tab key proposes, through the entry that shells use."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sslight.cli.main import main
from sslight.config import recipe_names

Tab = Callable[..., list[str]]


@pytest.fixture
def tab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Tab:
    """The proposals for the last word, in bash (words as bash takes them apart) or fish."""
    (tmp_path / "photos" / "ant").mkdir(parents=True)
    (tmp_path / "labels.csv").touch()
    monkeypatch.chdir(tmp_path)

    def press(*words: str, shell: str = "bash") -> list[str]:
        monkeypatch.setattr(sys, "argv", ["sslight"])
        monkeypatch.setenv("_SSLIGHT_COMPLETE", f"complete_{shell}")
        monkeypatch.setenv("COMP_WORDS", "\n".join(["sslight", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", " ".join(["sslight", *words]))
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        with pytest.raises(SystemExit):
            main()
        return [line.partition("\t")[0] for line in capsys.readouterr().out.splitlines() if line]

    return press


def test_commands_recipes_and_protocols_are_proposed(tab: Tab) -> None:
    assert tab("pre") == ["pretrain", "predict"]
    assert tab("data", "") == ["pack", "inspect"]
    assert tab("pretrain", "") == ["auto", *recipe_names()]
    assert tab("bench", "step", "quick") == ["quickstart"]
    assert tab("recipes", "swav_cnn_s") == ["swav_cnn_sslight", "swav_cnn_sslight_64"]
    assert tab("evaluate", "") == ["knn", "linear", "semi", "detect"]


def test_keys_are_those_of_the_command_that_are_not_given_yet(tab: Tab) -> None:
    assert tab("pretrain", "quickstart", "views.num") == ["views.num_global=", "views.num_local="]
    assert tab("data", "pack", "photos", "sh") == ["short_side=", "shard_images="]
    assert tab("evaluate", "knn", "run", "knn.") == ["knn.k=", "knn.temperature="]
    assert "masks=" in tab("evaluate", "detect", "run", "ma")
    assert "seed=" not in tab("pretrain", "quickstart", "seed", "=", "3", "se")
    assert tab("config", "export.fo") == ["export.format"]


def test_a_key_that_alone_fits_comes_with_its_values_and_gets_no_space(tab: Tab) -> None:
    assert tab("pretrain", "auto", "prec") == [f"precision={each}" for each in ("", "32", "bf16", "16", "auto")]
    assert tab("pretrain", "auto", "epo") == ["epochs=", "epochs=..."]


def test_values_are_names_true_and_false_or_paths(tab: Tab) -> None:
    assert tab("pretrain", "auto", "precision", "=") == ["32", "bf16", "16", "auto"]
    assert tab("pretrain", "auto", "precision", "=", "b") == ["bf16"]
    assert tab("pretrain", "auto", "precision=b", shell="fish") == ["precision=bf16"]
    assert tab("pretrain", "auto", "resume=", shell="fish") == ["resume=true", "resume=false", "resume=auto"]
    assert tab("export", "run", "format", "=", "onnx-") == ["onnx-fp16", "onnx-int8"]
    assert tab("pretrain", "auto", "data.train", "=", "ph") == []  # bash itself lists files then
    assert tab("pretrain", "auto", "data.train=ph", shell="fish") == ["data.train=photos/", "data.train=photos/ant/"]
    assert tab("export", "l", shell="fish") == ["labels.csv"]
    assert tab("pretrain", "auto", "nonsense", "=", "x") == []
