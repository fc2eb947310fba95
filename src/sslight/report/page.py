"""One HTML page in one file: style and images are inside, nothing is fetched, no script runs.

An earlier page of the same command is replaced, nothing else ever is.
"""

import base64
import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

UInt8Array = npt.NDArray[np.uint8]

_VOID = {"br", "img", "meta", "rect", "line", "path", "wbr"}
_LOSSLESS_SIDE = 96  # JPEG blurs the edges of small pictures, and saves little

REPORT, VIEWS, SELECT = "sslight report", "sslight views", "sslight select"
"""The commands that make pages, by which they know their own."""


class Html(str):
    """Finished markup. Any other text is escaped when it is put into an element."""


def element(name: str, /, *children: str, **attributes: str | float) -> Html:
    """``<name key="value">children</name>``; ``class_`` is class, and ``_`` in other keys is ``-``."""
    keys = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    start = name + "".join(f' {key}="{escape(str(value))}"' for key, value in keys)
    return Html(f"<{start} />" if name in _VOID and not children else f"<{start}>{together(children)}</{name}>")


def together(parts: Iterable[str]) -> Html:
    """Markup and texts one after the other, the texts escaped."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


def breakable(text: str) -> Html:
    """A name that may be broken after ``_`` and ``/``."""
    return Html(re.sub("([_/])", r"\1<wbr />", escape(text)))


def dot(color: str) -> Html:
    """A round mark in a color (a variable of the page's style)."""
    return element("span", class_="dot", style=f"--colour: var({color})")


def drawing(shapes: Iterable[str], box: tuple[float, float, float, float], label: str) -> Html:
    """An SVG of shapes; ``box`` is left, top, width, height."""
    return element("svg", *shapes, viewBox="{:g} {:g} {:g} {:g}".format(*box), role="img", aria_label=label)


def sentences(texts: Sequence[str]) -> list[Html]:
    """A list of notes, if there are any."""
    return [element("ul", *(element("li", text) for text in texts), class_="soft")] if texts else []


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """A table whose first column names the rows; it scrolls by itself where it is wider than the page."""
    top = element("tr", *(element("th", cell, scope="col") for cell in head))
    body = [
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows
    ]
    return element("div", element("table", element("thead", top), element("tbody", *body)), class_="wide")


def picture(pixels: UInt8Array, alt: str, **attributes: str | float) -> Html:
    """An image [H, W, 3] uint8 inside the page: PNG if it is small, else JPEG."""
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    kind = "png" if max(image.size) <= _LOSSLESS_SIDE else "jpeg"
    image.save(file, kind, **({} if kind == "png" else {"quality": 90, "subsampling": 0}))
    source = f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
    height, width = pixels.shape[:2]
    return element("img", src=source, alt=alt, width=width, height=height, **attributes)


def page(title: str, *body: str, made_by: str) -> str:
    """The whole page; ``made_by`` is the command, by which it knows its own pages again (:func:`holds_page_of`)."""
    style = (files("sslight") / "report" / "style.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        _generator(made_by),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(style)),
    )
    foot = element("footer", f"{made_by}, version {version('sslight')}")
    content = element("body", element("main", element("h1", title), *body), foot)
    return f"<!DOCTYPE html>\n{element('html', head, content, lang='en')}\n"


def holds_page_of(path: Path, made_by: str) -> bool:
    """Whether the file is a page that the command made."""
    try:
        with path.open(encoding="utf-8") as file:
            return _generator(made_by) in file.read(10_000)
    except (OSError, UnicodeDecodeError):
        return False


def _generator(made_by: str) -> Html:
    return element("meta", name="generator", content=f"{made_by} (one page)")


@dataclass(frozen=True)
class PageResult:
    """A page that was written, and its figures as plain data."""

    page: Path
    content: dict[str, Any]


def check_page_file(path: Path) -> None:
    """Refuse (ValueError), before any work, a file that is something else or cannot be written."""
    if path.is_dir():
        raise ValueError(f"output={path} is a folder: give a file, such as {path / 'report.html'}.")
    if path.exists() and not holds_page_of(path, REPORT):
        raise ValueError(
            f"output={path} exists and is not a page of `{REPORT}`, so it will not be overwritten: choose another."
        )
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(f"output={path} cannot be written, because {parent} is not a writable folder: choose another.")


def check_page_folder(page: Path) -> None:
    """The same for the folder of a page that has other files beside it; it is new, empty or of this command."""
    folder = page.parent
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output={folder} is a file: give a folder that is new or empty.")
    others = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    if others and not holds_page_of(page, VIEWS):
        raise ValueError(
            f"output={folder} holds other files ({', '.join(others[:3])}), and none will be "
            "overwritten: choose another."
        )
