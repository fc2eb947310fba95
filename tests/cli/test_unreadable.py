"""Unreadable images in a run: summed up on the screen at its end."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sslight.cli.main import main
from tests.conftest import TINY


def test_unreadable_images_are_summed_up_at_the_end_of_a_run(
    tmp_path: Path,
    image_folder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = image_folder("mixed", each=14)
    for name in ("x.jpg", "y.jpg"):
        (folder / name).write_bytes(b"")
    changes = {"data.train": folder, "output": tmp_path / "run", "data.max_bad_share": 0.5, "steps": 2}
    words = [f"{key}={value}" for key, value in (TINY | changes).items()]
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setattr(sys, "argv", ["sslight", "pretrain", "dino_cnn_sslight_64", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None)
    out = capsys.readouterr().out
    assert "2 images, replaced by others (2 × the file is empty (0 bytes)), listed in" in out
    assert str(tmp_path / "run" / "bad_images.csv") in out
