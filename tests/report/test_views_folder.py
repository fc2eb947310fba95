"""Where pages about views are written, and what they never overwrite."""

from pathlib import Path

import pytest

from sslight.report import ViewsFolder


def test_new_and_empty_folders_are_taken(tmp_path: Path) -> None:
    ViewsFolder(tmp_path)
    ViewsFolder(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_other_files_are_not_mixed_with(tmp_path: Path) -> None:
    (tmp_path / "views.html").write_text("<html>my own page</html>")
    with pytest.raises(ValueError, match=r"holds other files \(views\.html\), and nothing is overwritten"):
        ViewsFolder(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(ValueError, match="is a file: give a folder"):
        ViewsFolder(tmp_path / "x")
