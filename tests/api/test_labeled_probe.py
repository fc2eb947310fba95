"""Accuracies during pre-training, whatever of the images has labels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sslight.api.pretrain import run_pretraining
from sslight.config import PretrainSettings

Settings = Callable[..., PretrainSettings]
Folder = Callable[..., Path]


@pytest.fixture
def sets(image_folder: Folder) -> dict[str, str]:
    """Paths of a flat folder, folders by year, and two labelled sets of the same classes."""
    classes = {"flat": (), "years": ("2021", "2022"), "labelled": ("cat", "dog"), "others": ("cat", "dog")}
    return {name: str(image_folder(name, classes=of, each=8 if of else 16)) for name, of in classes.items()}


@pytest.mark.parametrize(
    ("changes", "protocol"),
    [
        ({"data__train": "flat", "data__val": "labelled"}, "leave-one-out on 16 labeled images (data.val alone)"),
        ({"data__train": "years", "data__val": "labelled"}, "leave-one-out on 16 labeled images (data.val alone)"),
        (
            {"data__train": "flat", "data__val": "labelled", "probe__train": "others"},
            "16 validation images against 16 labeled images",
        ),
        ({"data__train": "flat", "probe__train": "others"}, "leave-one-out on 16 labeled images (probe.train alone)"),
        (
            {"data__train": "others", "data__val": "labelled"},
            "16 validation images against 16 training images",
        ),
    ],
)
def test_a_pool_without_labels_is_watched_with_the_labels_that_there_are(
    changes: dict[str, str], protocol: str, sets: dict[str, str], tiny: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    paths: dict[str, Any] = {key: sets[name] for key, name in changes.items()}
    result = run_pretraining(tiny(**paths, steps=2))
    assert result.protocol == protocol
    first, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith("training with ")
    assert first.endswith(f"; 16 images; kNN: {protocol}")
    assert result.training.measurements[-1].keys() == {"step", "knn_top1", "knn_images", "linear_top1"}
    assert (result.output / "checkpoints" / "best.pt").exists()


def test_the_first_line_says_what_was_passed_over(
    sets: dict[str, str], tiny: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("film.mov", "notes.txt"):
        (Path(sets["flat"]) / name).write_bytes(b"no image")
    run_pretraining(tiny(data__train=sets["flat"], steps=1, optim__warmup_epochs=0))
    first, *_ = capsys.readouterr().err.splitlines()
    assert "; 16 images; skipped: " in first
    assert ".mov" in first


def test_classes_that_are_only_partly_the_same_are_an_error(
    sets: dict[str, str], image_folder: Folder, tiny: Settings
) -> None:
    more = image_folder("with a bird", classes=("cat", "bird"), each=4)
    with pytest.raises(ValueError, match="1 of 2 classes are not among the 2 training classes"):
        run_pretraining(tiny(data__train=sets["labelled"], data__val=str(more)))
