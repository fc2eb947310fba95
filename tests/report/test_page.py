"""What every page keeps to: one file, nothing fetched, nothing from outside taken for markup."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslight.report.page import Html, check_page_file, check_page_folder, element, holds_page_of, page, picture, table
from sslight.report.views.page import histogram

HOSTILE = '"><script>alert(1)</script>&amp;'


class Balance(HTMLParser):
    """Notes text, attributes, and elements that are opened but not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_text_is_escaped_wherever_it_stands() -> None:
    rows = [[HOSTILE, HOSTILE]]
    body = [HOSTILE, element("p", HOSTILE, title=HOSTILE), table(["", HOSTILE], rows)]
    parsed = Balance(page(HOSTILE, *body, made_by="sslight test"))
    assert parsed.open == []
    assert "script" not in parsed.names
    assert parsed.text.count(HOSTILE) == 7  # title, heading, body, paragraph, head of the table, two cells
    assert ("title", HOSTILE) in parsed.attributes


def test_markup_stays_markup() -> None:
    assert element("p", element("b", "a < b"), class_="x", aria_label="y") == (
        '<p class="x" aria-label="y"><b>a &lt; b</b></p>'
    )
    assert isinstance(element("br"), Html)


def test_a_page_fetches_nothing_and_runs_nothing() -> None:
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    chart = histogram([[0.2, 0.8]], ticks=((0.0, "0"), (1.0, "1")), label="share", mark=0.5)
    text = page("A page", picture(pixels, "black"), chart, made_by="sslight test")
    parsed = Balance(text)
    assert parsed.names & {"script", "link", "iframe", "object"} == set()
    for name, value in parsed.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value is not None
            assert value.startswith("data:")
    assert not re.search(r"@import|url\(", text)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_pictures_hold_their_pixels_exactly_if_small_and_nearly_if_large() -> None:
    for side, kind, tolerance in ((64, "png", 0), (200, "jpeg", 3)):
        ramp = np.linspace(0, 255, side).astype(np.uint8)
        pixels = np.repeat(np.broadcast_to(ramp, (side, side))[:, :, None], 3, axis=2)
        source = re.search(rf"data:image/{kind};base64,([^\"]+)", picture(pixels, ""))
        assert source
        back = np.asarray(Image.open(io.BytesIO(base64.b64decode(source[1]))))
        assert back.shape == pixels.shape
        assert np.abs(back.astype(int) - pixels).max() <= tolerance


def test_a_page_is_known_by_the_command_that_made_it(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(page("sslight other", "sslight other (one page)", made_by="sslight test"))
    assert holds_page_of(file, "sslight test")
    assert not holds_page_of(file, "sslight other")


def test_the_outline_of_a_histogram_has_the_heights_of_its_bins() -> None:
    drawn = histogram([[0.0, 0.5, 0.25, 0.25]], ticks=(), label="x")
    path = re.search(r' d="([^"]+)"', drawn)
    assert path
    heights = [float(value) for value in re.findall(r"V([\d.]+)", path[1])]
    assert heights == [130.0, 0.0, 65.0, 65.0, 130.0]


def test_only_an_own_page_is_replaced(tmp_path: Path) -> None:
    own, other = tmp_path / "report.html", tmp_path / "thesis.html"
    own.write_text(page("a", made_by="sslight report"))
    other.write_text("my thesis")
    check_page_file(own)
    check_page_file(tmp_path / "new" / "report.html")
    with pytest.raises(ValueError, match="is not a page of `sslight report`, so it will not be overwritten"):
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
    with pytest.raises(ValueError, match=r"holds other files \(views\.html\), and none will be overwritten"):
        check_page_folder(file)
    with pytest.raises(ValueError, match="is a file: give a folder"):
        check_page_folder(file / "views.html")
    file.write_text(page("a", made_by="sslight views"))
    check_page_folder(file)
