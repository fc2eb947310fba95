"""The file that ``sslight report`` writes."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sslight.files import write_whole
from sslight.report.page import holds_page_of
from sslight.report.run_files import Run
from sslight.report.run_page import MADE_BY, Pictures, Results, run_page


class ReportFile:
    """One page. An earlier page of the same command is replaced.

    Raises ValueError, before any work, if there is anything else at the path, or if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            raise ValueError(f"output={path} is a folder: give a file, such as {path / 'report.html'}.")
        if path.exists() and not holds_page_of(path, MADE_BY):
            raise ValueError(
                f"output={path} exists and is not a page of `{MADE_BY}`, and nothing else is overwritten: "
                "give another name with output=."
            )
        parent = next(folder for folder in path.absolute().parents if folder.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise ValueError(
                f"output={path} cannot be written, since {parent} is not a writable folder: give another file with "
                "output=."
            )

    def write(
        self, runs: Sequence[Run], summaries: Sequence[Mapping[str, Any]], results: Results, pictures: Pictures
    ) -> None:
        """Write the page, whole or not at all."""
        text = run_page(runs, summaries, results, pictures)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, text)
