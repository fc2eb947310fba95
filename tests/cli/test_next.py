"""``sslight`` alone: what fits what is here, with real names."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sslight.cli import next as alone
from sslight.cli.main import main
from tests.test_docs import resolve


@pytest.fixture
def proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], list[str]]:
    """The commands that are printed in this folder, each of which must be readable."""
    monkeypatch.chdir(tmp_path)

    def run() -> list[str]:
        monkeypatch.setattr(sys, "argv", ["sslight"])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        commands = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
        for command in commands:
            resolve(command)
        return commands

    return run


def draw(folder: Path, number: int = 6) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        (folder / f"{index}.JPG").touch()


def test_with_nothing_here_the_way_is_shown_with_placeholders(proposed: Callable[[], list[str]]) -> None:
    draw(Path("site"), 2)  # no set
    assert proposed() == [
        "sslight pretrain auto data.train=IMAGES output=runs/first hours=8",
        "sslight pretrain quickstart output=runs/quickstart",
    ]


@pytest.mark.parametrize(
    ("folders", "images"),
    [
        (["photos"], "photos"),
        (["photos/2024/may"], "photos"),
        ([".thumbnails", "photos"], "photos"),
        (["ant", "bee", "cat", "dog"], "."),
        (["."], "."),
        (["set/ant", "set/bee"], "set"),
    ],
)
def test_images_are_named_as_they_lie_here(folders: list[str], images: str, proposed: Callable[[], list[str]]) -> None:
    for folder in folders:
        draw(Path(folder))
    output = "../runs/first" if images == "." else "runs/first"
    assert proposed() == [
        f"sslight pretrain auto data.train={images} output={output} hours=8",
        f"sslight plan {images} hours=8",
        f"sslight views {images}",
    ]


def test_the_newest_run_decides_what_comes_next(proposed: Callable[[], list[str]]) -> None:
    draw(Path("photos"))
    run = Path("runs/first")
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").touch()
    assert proposed() == ["sslight report runs/first"]  # a classifier's, or a detector's
    (run / "config.yaml").write_text("method: dino\n")
    assert proposed() == ["sslight report runs/first", "sslight pretrain runs/first resume=true"]
    (run / "backbone.safetensors").touch()
    assert [words.split()[1:3] for words in proposed()] == [
        ["evaluate", "knn"], ["select", "runs/first"], ["finetune", "runs/first"], ["export", "runs/first"]
    ]  # fmt: skip
    later = Path("runs/classifier")
    (later / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "classifier.safetensors"):
        (later / name).touch()
    os.utime(run / "config.yaml", (1, 1))
    assert proposed() == [
        "sslight predict runs/classifier photos output=predictions.csv",
        "sslight export runs/classifier data.check=photos",
    ]


def test_the_images_of_the_run_are_proposed(proposed: Callable[[], list[str]]) -> None:
    for folder in ("album", "others"):
        draw(Path(folder))
    run = Path("runs/first")
    (run / "checkpoints").mkdir(parents=True)
    (run / "backbone.safetensors").touch()
    (run / "config.yaml").write_text("method: dino\ndata:\n  train:\n  - others\n")
    assert "sslight export runs/first data.check=others" in proposed()
    (run / "config.yaml").write_text("method: dino\ndata:\n  train:\n  - gone\n")
    assert "sslight export runs/first data.check=album" in proposed()


def test_the_pictures_of_a_clone_are_no_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("src/sslight").mkdir(parents=True)
    Path("Makefile").touch()
    draw(Path("docs/pictures"))
    assert alone._look() == (None, [])


def test_names_with_spaces_are_quoted(proposed: Callable[[], list[str]]) -> None:
    draw(Path("my photos"))
    assert proposed()[1] == "sslight plan 'my photos' hours=8"


def test_a_large_tree_is_looked_at_in_part(proposed: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(150):
        Path(f"sub{number}/deeper").mkdir(parents=True)
    listed: list[Path] = []
    entries = alone._entries

    def counted(folder: Path) -> Iterator[os.DirEntry[str]]:
        listed.append(folder)
        return entries(folder)

    monkeypatch.setattr(alone, "_entries", counted)
    proposed()
    assert len(listed) == 100


@pytest.mark.parametrize(
    "environment", [{}, {"_SSLIGHT_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "sslight pre"}]
)
def test_torch_is_not_imported(environment: dict[str, str], tmp_path: Path) -> None:
    code = "import sys, sslight.cli.main as m\ntry: m.main()\nexcept SystemExit: sys.exit('torch' in sys.modules)"
    path = os.pathsep.join(str(Path(each).resolve()) for each in sys.path)
    env = {**os.environ, **environment, "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=tmp_path, capture_output=True, env=env)
