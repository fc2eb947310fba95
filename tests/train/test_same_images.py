"""A run continues with the images it began with, wherever they lie, and with no others."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sslight.api.pretrain import run_pretraining
from sslight.config import PretrainSettings
from sslight.data import build_source, pack
from sslight.train import load_checkpoint, loop
from sslight.train.record.checkpoints import save_checkpoint
from sslight.train.task import TrainingStopped

Settings = Callable[..., PretrainSettings]
Folder = Callable[..., Path]


@pytest.fixture
def stopped(
    tiny: Settings, tmp_path: Path, image_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """A run of four steps on ``images``, stopped after the second; the function continues it with changes."""
    image_folder("images", classes=("a", "b"), each=8)
    first: dict[str, Any] = {"data__train": str(tmp_path / "images"), "batch_size": 4}
    with monkeypatch.context() as patch:
        patch.setattr(loop, "agreed", lambda flags, fabric, step: [step == 1, False, False])
        with pytest.raises(TrainingStopped):
            run_pretraining(tiny(**first))

    def resumed(**changes: Any) -> None:
        run_pretraining(tiny(**(first | {"resume": True, **changes})))

    return resumed


def added(images: Path) -> None:
    shutil.copyfile(images / "a" / "000.jpg", images / "a" / "100.jpg")


def renamed(images: Path) -> None:
    (images / "a" / "000.jpg").rename(images / "a" / "100.jpg")


def repainted(images: Path) -> None:
    Image.new("RGB", (40, 40)).save(images / "a" / "000.jpg")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (added, "17 images, not 16"),
        (renamed, "16 images with other names"),
        (repainted, "16 images with other contents"),
    ],
)
def test_other_images_are_one_sentence_with_what_differs(
    change: Callable[[Path], None], words: str, stopped: Callable[..., None], tmp_path: Path
) -> None:
    change(tmp_path / "images")
    with pytest.raises(
        ValueError, match=rf"continues with the images it began with, and data.train has {words}: give the same ones"
    ):
        stopped()


def test_a_moved_folder_and_shards_of_it_in_any_number_go_on(stopped: Callable[..., None], tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "pool"
    moved.parent.mkdir()
    (tmp_path / "images").rename(moved)
    images = build_source([str(moved)], labeled=False)
    for name, size in (("one", 16), ("many", 3)):
        pack(images, tmp_path / name, format="tar", shard_images=size)
        shutil.copytree(tmp_path / "run", tmp_path / f"run {name}")
        stopped(data__train=str(tmp_path / name), output=str(tmp_path / f"run {name}"))
    assert len(list((tmp_path / "many").glob("*.tar"))) == 6
    stopped(data__train=str(moved))


def test_measured_images_are_compared_too_and_old_checkpoints_go_on(
    stopped: Callable[..., None], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"began with, and data\.val was not given: give"):
        stopped(data__val="synthetic:8:val")
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    state = load_checkpoint(last)
    del state["data"]
    save_checkpoint(last, state)
    added(tmp_path / "images")
    stopped()
