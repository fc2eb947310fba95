"""Settings of ``sslight report``: where the page goes, and what it shows."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from sslight.config.fields import FilePath, Section, Seed
from sslight.config.overrides import build, parse_words


class ReportSettings(Section):
    """How a page about runs is made."""

    explained_by: ClassVar[str] = "sslight report --help"

    output: FilePath | None = None
    """The page. null: report.html in the run's folder, or in the current one for several runs."""

    images: Annotated[int, Field(ge=0, le=5000)] = 400
    """Images of which features are computed, on the CPU, for neighbours and map; 0 leaves these and the views out."""

    queries: Annotated[int, Field(ge=1, le=40)] = 6
    """Images whose nearest neighbours are shown."""

    seed: Seed = 0
    """Chooses the images."""


def build_report(words: Iterable[str]) -> tuple[list[Path], ReportSettings]:
    """The folders and files that are named, and the settings typed as ``key=value``. Raises ValueError."""
    words = list(words)
    assignments = [word for word in words if "=" in word and not os.path.exists(word)]  # noqa: PTH110 - never raises
    paths = [Path(word).expanduser() for word in words if word not in assignments]
    return paths, build(ReportSettings, parse_words(assignments, ReportSettings))
