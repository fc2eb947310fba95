"""Where pages are written, and what they never overwrite."""

from pathlib import Path

import pytest

from sslight.report import check_page_file, check_page_folder
from sslight.report.page import page


def test_only_an_own_page_is_replaced(tmp_path: Path) -> None:
    own, other = tmp_path / "report.html", tmp_path / "thesis.html"
    own.write_text(page("a", made_by="sslight report"))
    other.write_text("my thesis")
    check_page_file(own)
    check_page_file(tmp_path / "new" / "report.html")
    with pytest.raises(ValueError, match="is not a page of `sslight report`, and nothing else is overwritten"):
        check_page_file(other)
    with pytest.raises(ValueError, match=r"is a folder: give a file, such as .*report\.html"):
        check_page_file(tmp_path)
    with pytest.raises(ValueError, match="cannot be written"):
        check_page_file(other / "report.html")


def test_a_folder_is_new_or_empty_or_has_an_earlier_page(tmp_path: Path) -> None:
    file = tmp_path / "views.html"
    check_page_folder(file)
    check_page_folder(tmp_path / "new" / "views.html")
    assert not (tmp_path / "new").exists()
    file.write_text("<html>my own page</html>")
    with pytest.raises(ValueError, match=r"holds other files \(views\.html\), and nothing is overwritten"):
        check_page_folder(file)
    with pytest.raises(ValueError, match="is a file: give a folder"):
        check_page_folder(file / "views.html")
    file.write_text(page("a", made_by="sslight views"))
    check_page_folder(file)
