"""Where pages are written: an earlier page of the same command is replaced, nothing else ever is."""

import os
from pathlib import Path

from sslight.report.page import holds_page_of

REPORT, VIEWS = "sslight report", "sslight views"
"""The commands that make pages, by which they know their own."""


def check_page_file(path: Path) -> None:
    """Refuse (ValueError), before any work, a file that is something else or cannot be written."""
    if path.is_dir():
        raise ValueError(f"output={path} is a folder: give a file, such as {path / 'report.html'}.")
    if path.exists() and not holds_page_of(path, REPORT):
        raise ValueError(
            f"output={path} exists and is not a page of `{REPORT}`, and nothing else is overwritten: "
            "give another name with output=."
        )
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(
            f"output={path} cannot be written, since {parent} is not a writable folder: give another file with output=."
        )


def check_page_folder(page: Path) -> None:
    """The same for the folder of a page that has other files beside it; it is new, empty or of this command."""
    folder = page.parent
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output={folder} is a file: give a folder that is new or empty.")
    others = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    if others and not holds_page_of(page, VIEWS):
        raise ValueError(
            f"output={folder} holds other files ({', '.join(others[:3])}), and nothing is overwritten: give a "
            f"folder that is new, empty or from an earlier `{VIEWS}`."
        )
