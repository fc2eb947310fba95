"""Wrong input: one sentence, exit code 2, no traceback, nothing written."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sslight.cli.main import main
from tests.conftest import TINY


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sslight", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert isinstance(end.value.code, int)
    return end.value.code


def tiny_words(changes: dict[str, str]) -> list[str]:
    words = {key: str(value) for key, value in TINY.items()} | changes
    return [f"{key}={value}" for key, value in words.items()]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data.train": "{tmp}/nowhere"}, "nowhere"),
        ({"data.train": "{tmp}/empty"}, "empty"),
        ({"data.train": "{tmp}/unreadable"}, "no readable image among the"),
        ({"data.train": "{tmp}/text.txt"}, "text.txt"),
        ({"data.train": "synthetic:many"}, "synthetic:many"),
        (
            {"views.local_scale": "[0.05, 1.2]"},
            "views.local_scale=[0.05, 1.2]: must be two shares of the image area",
        ),
        ({"views.local_size": "64"}, "views.local_size=64 is larger than views.global_size=32"),
        ({"batch_size": "4096"}, "batch_size=4096"),
        (
            {"batch_size": "9", "accumulate": "2"},
            "batch_size=9 does not divide by 1 processes × accumulate=2",
        ),
        ({"backbone": "mobilnet_v2"}, "mobilenet"),
        ({"patch_size": "8"}, "patch_size=8"),
        ({"output": "{tmp}/used"}, "is not empty: choose a new or an empty folder"),
        ({"output": "{tmp}/text.txt"}, "is a file: give a folder"),
        ({"output": "/proc/sslight-run"}, "output=/proc/sslight-run cannot be written"),
        ({"output": "{tmp}/text.txt/run"}, "cannot be written"),
        ({"resume": "true"}, "resume=true, but"),
        ({"data.subset": "{tmp}/list.txt"}, "nobody.jpg"),
        (
            {"probe.linear": "true", "data.train": "{tmp}/flat"},
            "flat has 12 of 12 images outside any sub-folder",
        ),
        ({"init_from": "{tmp}/text.txt"}, "text.txt"),
        ({"optim.name": "muon", "backbone": "test_vit"}, "channels: set optim.name=lars."),
        ({"steps": "2", "optim.warmup_epochs": "1"}, "not shorter than the run of 2 steps"),
        ({"epoch": "2"}, "epoch is not a setting: did you mean epochs?"),
    ],
)
def test_a_wrong_input_ends_in_one_sentence(
    changes: dict[str, str],
    sentence: str,
    tmp_path: Path,
    image_folder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    image_folder("flat")
    (tmp_path / "empty").mkdir()
    for folder in ("unreadable", "used"):
        (tmp_path / folder).mkdir()
        for i in range(20):
            (tmp_path / folder / f"{i}.jpg").write_bytes(b"no picture")
    (tmp_path / "text.txt").write_text("words", encoding="utf-8")
    (tmp_path / "list.txt").write_text("nobody.jpg\n", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    changes = {"output": str(tmp_path / "run")} | {k: v.replace("{tmp}", str(tmp_path)) for k, v in changes.items()}

    code = run(monkeypatch, "pretrain", "dino_cnn_sslight_64", *tiny_words(changes))

    out, err = capfd.readouterr()
    assert code == 2
    assert sentence in err
    assert err.startswith("sslight: ")
    assert err.count("\n") == 1
    assert out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("devices", ["gpu", "2"])
def test_a_gpu_asked_for_where_there_is_none_is_refused(
    devices: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = tiny_words({"output": str(tmp_path / "run"), "devices": devices})
    assert run(monkeypatch, "pretrain", "dino_cnn_sslight_64", *words) == 2
    assert f"devices={devices}, but this machine has no GPU" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_refused_without_resume_and_continued_only_with_its_own_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = tiny_words({"output": str(tmp_path / "run"), "steps": "2"})
    monkeypatch.setattr(sys, "argv", ["sslight", "pretrain", "dino_cnn_sslight_64", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None)
    capfd.readouterr()
    assert run(monkeypatch, "pretrain", "dino_cnn_sslight_64", *words) == 2
    assert "already holds a run: add resume=true to continue it" in capfd.readouterr().err
    assert run(monkeypatch, "pretrain", "dino_cnn_sslight_64", *words, "resume=true", "seed=3") == 2
    assert "seed was 0 and is now 3" in capfd.readouterr().err
    assert run(monkeypatch, "pretrain", "dino_cnn_sslight_64", *words, "resume=true") == 2
    assert "nothing to resume" in capfd.readouterr().err
