"""The folder that ``sslight views`` writes."""

import json
from collections.abc import Sequence
from pathlib import Path

from sslight.files import whole_file, write_whole
from sslight.report.page import holds_page_of
from sslight.report.views_page import MADE_BY, Content, views_page
from sslight.report.views_picture import views_picture
from sslight.report.views_sheet import ShownImage


class ViewsFolder:
    """``views.html``, ``views.png`` and ``views.json`` in a folder of their own.

    An earlier page of the same command is replaced. Raises ValueError if there is anything else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.page = path / "views.html"
        self.picture = path / "views.png"
        self.numbers = path / "views.json"
        if not path.exists():
            return
        if not path.is_dir():
            raise ValueError(f"output={path} is a file: give a folder that is new or empty.")
        others = sorted(entry.name for entry in path.iterdir())
        if others and not holds_page_of(self.page, MADE_BY):
            raise ValueError(
                f"output={path} holds other files ({', '.join(others[:3])}), and nothing is overwritten: give a "
                f"folder that is new, empty or from an earlier `{MADE_BY}`."
            )

    def write(self, content: Content, images: Sequence[ShownImage]) -> None:
        """Write the three files, each whole or not at all; the page comes first, so that the folder is known again."""
        page, picture = views_page(content, images), views_picture(content, images)
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self.page, page)
        with whole_file(self.picture, "wb") as file:
            picture.save(file, "png")
        write_whole(self.numbers, json.dumps(content, indent=1))
