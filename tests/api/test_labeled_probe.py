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


def test_what_is_wrong_with_the_labeled_images_is_said_before_the_first_step(
    sets: dict[str, str], image_folder: Folder, tmp_path: Path, tiny: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("".join(f"{n:03}.jpg,{'ab'[n % 2]}\n" for n in range(17)), encoding="utf-8")
    tables = {"data__labels": str(table), "data__val_labels": str(table)}
    run_pretraining(tiny(data__train=sets["flat"], data__val=f"{sets['flat']}/", **tables, steps=1))
    first, *_ = capsys.readouterr().err.splitlines()
    assert first.endswith(
        f"; 1 of 17 labeled names in {table} has no image in data.train and data.val (first: 016.jpg; a name there is "
        "000.jpg); 16 images of data.val are also in data.train, so the accuracy is too high"
    )
    run_pretraining(tiny(data__train=sets["flat"], data__val=sets["labelled"], steps=1, output=tmp_path / "other"))
    assert "also in" not in capsys.readouterr().err
    for file in image_folder("bad", classes=("cat", "dog"), each=2).rglob("*.jpg"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no readable image among the 4 tried: .*; check that data\.val points to"):
        run_pretraining(tiny(data__train=sets["labelled"], data__val=str(tmp_path / "bad"), output=tmp_path / "third"))
    with pytest.raises(ValueError, match=r"^data\.multi_label=True would have no effect: only sslight finetune takes"):
        tiny(data__train=sets["flat"], data__labels=str(table), data__multi_label=True)


def test_labels_of_one_class_measure_nothing(tiny: Settings, image_folder: Folder, tmp_path: Path) -> None:
    folder = image_folder("flat", each=16)
    rows = [f"{path.name},same" for path in sorted(folder.iterdir())]
    (tmp_path / "same.csv").write_text("\n".join(["name,label", *rows]), encoding="utf-8")
    labels = {"data__labels": str(tmp_path / "same.csv"), "probe__knn": True}
    with pytest.raises(ValueError, match=r"data\.train has images of one class only, all of which are always right"):
        run_pretraining(tiny(data__train=str(folder), **labels, steps=2))
