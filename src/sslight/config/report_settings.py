"""Settings of ``sslight report``: where the page goes, and what it shows."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from sslight.config.fields import NonNegativeInt, Section
from sslight.config.overrides import parse_words


class ReportSettings(Section):
    """How a page about runs is made."""

    output: Path | None = None
    """The page. null: report.html in the run's folder, or in the current one for several runs."""

    images: Annotated[int, Field(ge=0, le=5000)] = 400
    """Images of which features are computed, on the CPU, for neighbours and map; 0 leaves these and the views out."""

    queries: Annotated[int, Field(ge=1, le=40)] = 6
    """Images whose nearest neighbours are shown."""

    seed: NonNegativeInt = 0
    """Chooses the images."""


def build_report(words: Iterable[str]) -> tuple[list[Path], ReportSettings]:
    """The folders and files that are named, and the settings typed as ``key=value``. Raises ValueError."""
    words = list(words)
    assignments = [word for word in words if "=" in word and not Path(word).exists()]
    paths = [Path(word).expanduser() for word in words if word not in assignments]
    return paths, build_report_settings(parse_words(assignments))


def build_report_settings(values: Mapping[str, Any]) -> ReportSettings:
    """The settings of a report. Raises ValueError for a wrong name or value."""
    for key in values:
        if key not in ReportSettings.model_fields:
            near = difflib.get_close_matches(key, ReportSettings.model_fields, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(ReportSettings.model_fields)}"
            raise ValueError(f"{key} is not a setting of the report: {hint}")
    try:
        return ReportSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        rule = first["msg"]
        raise ValueError(
            f"{first['loc'][0]}={first['input']}: {rule[0].lower()}{rule[1:]}; see `sslight report --help`"
        ) from None
