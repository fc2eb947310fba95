"""One HTML page in one file: style and images are inside, nothing is fetched, no script runs."""

import base64
import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

UInt8Array = npt.NDArray[np.uint8]

_VOID = {"br", "img", "meta", "rect", "line", "path", "wbr"}
_LOSSLESS_SIDE = 96  # JPEG blurs the edges of small pictures, and saves little


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
    parts = [[part, element("wbr")] if part in ("_", "/") else [part] for part in re.split("([_/])", text)]
    return together(piece for part in parts for piece in part)


def sentences(texts: Sequence[str]) -> list[Html]:
    """A list of notes, if there are any."""
    return [element("ul", *(element("li", text) for text in texts), class_="soft")] if texts else []


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """A table whose first column names the rows; it scrolls by itself where it is wider than the page."""
    lines = [element("tr", *(element("th", cell, scope="col") for cell in head))]
    body = [
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows
    ]
    grid = element("table", element("thead", *lines), element("tbody", *body))
    return element("div", grid, class_="wide")


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
    """The whole page.

    Args:
        title: Name of the page, its heading too.
        body: Markup and texts below the heading.
        made_by: The command, by which it knows its own pages again (:func:`holds_page_of`).
    """
    style = (files("sslight") / "report" / "style.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="generator", content=_generator(made_by)),
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
            return str(element("meta", name="generator", content=_generator(made_by))) in file.read(10_000)
    except (OSError, UnicodeDecodeError):
        return False


def _generator(made_by: str) -> str:
    return f"{made_by} (one page)"
