"""A run folder stands for its weights."""

import os
from pathlib import Path

import pytest

from sslight.train import weights_in


def run_folder(folder: Path, *files: str) -> Path:
    """A run folder with files, each a minute older than the next."""
    for minute, name in enumerate(("config.yaml", *files)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (60 * minute, 60 * minute))
    return folder


LAST, EXPORT = "checkpoints/last.pt", "backbone.safetensors"


@pytest.mark.parametrize(
    ("files", "whole", "expected"),
    [
        ((LAST, EXPORT), False, EXPORT),
        ((LAST, EXPORT), True, LAST),
        ((EXPORT,), True, EXPORT),
        ((LAST,), False, LAST),
        (("checkpoints/epoch_0003.pt",), False, "checkpoints/epoch_0003.pt"),
        ((EXPORT, LAST), False, LAST),
    ],
    ids=["ended", "teacher or head", "export alone", "going on", "last is gone", "continued after its end"],
)
def test_of_a_run_the_export_is_taken_or_the_newest_checkpoint(
    tmp_path: Path, files: tuple[str, ...], whole: bool, expected: str
) -> None:
    assert weights_in(str(run_folder(tmp_path, *files)), whole=whole) == str(tmp_path / expected)


def test_files_and_names_stand_for_themselves_and_other_folders_are_refused(tmp_path: Path) -> None:
    for name in ("timm:resnet18", "hf-hub:timm/resnet18", "nowhere.pt", str(run_folder(tmp_path, LAST) / LAST)):
        assert weights_in(name) == name
    with pytest.raises(ValueError, match=r"checkpoints is a folder without a run \(config.yaml\): give a run folder"):
        weights_in(str(tmp_path / "checkpoints"))
    with pytest.raises(ValueError, match="young is a run that has no weights yet: wait for its first checkpoint"):
        weights_in(str(run_folder(tmp_path / "young")))
