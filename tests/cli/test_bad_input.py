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


MISTAKES = [
    ("pretrain", "no recipe given: begin with auto, or with one that `sslight recipes` lists"),
    ("pretrain epochs=10", "no recipe given"),
    ("pretrain dino_cnn_sslite", "there is no recipe 'dino_cnn_sslite': did you mean dino_cnn_sslight"),
    ("pretrain mine.yaml", "recipe file mine.yaml cannot be read (No such file or directory)"),
    ("pretrain quickstart --epochs 10", "--epochs is no option: settings are typed without dashes, epochs=10."),
    ("pretrain quickstart --batch-size=64", "typed without dashes, batch_size=64."),
    ("pretrain quickstart -epochs 10", "-epochs is no option: settings are typed without dashes, epochs=10."),
    ("pretrain quickstart --fast", "No such option: --fast; `sslight pretrain --help` shows what to type."),
    ("pretrain quickstart data.train = X", "data.train and its value are apart: write data.train=X, without spaces."),
    ("pretrain quickstart data.train= X", "write data.train=X, without spaces."),
    ("pretrain quickstart epochs 10", "epochs and its value are apart: write epochs=10, without spaces."),
    ("pretrain quickstart data.train=my images", "a value with spaces needs quotes, as in 'data.train=my images'"),
    ("pretrain quickstart epoch=10", "epoch is not a setting: did you mean epochs?"),
    ("pretrain quickstart epochs=10 epochs=20", "epochs is given twice: once as 10 and once as '20'; keep one."),
    ("pretrain quickstart epochs=", "epochs= has no value: give one, or null for none."),
    ("pretrain quickstart epochs=ten", "epochs=ten: input should be a valid integer"),
    ("pretrain quickstart epochs=yes", "epochs=yes: input should be a valid integer"),
    ("pretrain quickstart workers=no", "workers=no: input should be a valid integer"),
    ("pretrain quickstart workers=false", "workers=False: must be a number, which true and false are not"),
    ("pretrain quickstart lr=0,1", "lr=0,1: input should be a valid number"),
    ("pretrain quickstart views.global_scale=0.3,1", "in a shell with quotes: 'views.global_scale=[0.3,1]'"),
    ("pretrain quickstart views.global_scale=[0.3, 1]", "lists need both brackets, and quotes in a shell"),
    ("pretrain quickstart views.blur_radius=[0.1,1]", "views.blur_radius is now called views.blur_sigma"),
    ("pretrain quickstart views=small", "views is a group of settings: set one of views.num_global"),
    ("pretrain quickstart optimizer=adamw", "optimizer is not a setting"),
    ("pretrain quickstart precision=fp16", "precision=fp16: input should be '32', 'bf16' or '16'"),
    ("pretrain quickstart devices=cuda:0", "devices=cuda:0: must be auto, cpu, gpu or a number of GPUs"),
    ("pretrain quickstart moco.queue_size=64", "moco.queue_size=64 would have no effect: method=dino"),
    ("pretrain quickstart steps=5 epochs=5", "both epochs=5 and steps=5 given: set one"),
    ("pretrain --cfg nowhere.yaml", "configuration nowhere.yaml cannot be read (No such file or directory)"),
    ("evaluate", "Missing argument 'protocol'; `sslight evaluate --help` shows what to type."),
    ("evaluate fewshot b.pt", "fewshot is not a protocol: choose knn, linear, semi or detect."),
    ("evaluate detct b.pt", "detct is not a protocol: did you mean detect?"),
    ("evaluate data.train=a knn", "data.train=a stands where the protocol and the checkpoint belong"),
    ("evaluate knn b.pt --data.train a", "--data.train is no option: settings are typed without dashes, data.train=a."),
    ("evaluate knn b.pt epochs=3", "epochs is not a setting: did you mean"),
    ("evaluate knn b.pt linear.epochs=3", "linear.epochs=3 would have no effect: the protocol is knn"),
    ("evaluate detect b.pt data=a train_sizes=600,800", "in a shell with quotes: 'train_sizes=[600,800]'"),
    ("export data.check=a", "data.check=a stands where the checkpoint belongs"),
    ("export b.pt format=onxx", "format=onxx: input should be 'safetensors'"),
    ("export b.pt input=normalised", "input=normalised: is now written input=normalized"),
    ("views", "Missing argument 'DATA'; `sslight views --help` shows what to type."),
    ("views recipe=quickstart", "recipe=quickstart stands where the images belong"),
    ("bench step quickstart steps=3 --steps 4", "--steps 4 and steps=3 are both given: keep one."),
    ("bench loader quickstart steps=3 data.train=a", "steps=3 would have no effect: give --seconds"),
    ("bench loader quickstart seconds=3", "seconds is not a setting"),
    ("bench step quickstart --steps many", "Invalid value for '--steps': "),
    ("data pack a", "Missing argument 'OUT'; `sslight data --help` shows what to type."),
    ("data pack a b format=zip", "format=zip: input should be 'h5' or 'tar'; `sslight data pack --help` explains it."),
    ("config view.local_size", "view.local_size is not a setting: did you mean views.local_size"),
    ("recipes dino", "there is no recipe 'dino'"),
    ("pretrian quickstart", "No such command 'pretrian'"),
]


@pytest.mark.parametrize(("typed", "sentence"), MISTAKES, ids=[typed for typed, _ in MISTAKES])
def test_a_natural_mistake_says_what_to_type(
    typed: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *typed.split()) == 2
    out, err = capfd.readouterr()
    assert err.startswith("sslight: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []
