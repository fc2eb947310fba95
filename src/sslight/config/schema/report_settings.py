"""Settings of ``sslight report``: where the page goes, and what it shows."""

from typing import Annotated, ClassVar

from pydantic import Field

from sslight.config.schema.fields import FilePath, Section, Seed


class ReportSettings(Section):
    """How a page about runs is made."""

    explained_by: ClassVar[str] = "sslight config report.{key}"

    output: FilePath | None = None
    """The page; null: report.html in the run's folder, or in the current one for several runs.
    Unit: path. Try: null."""

    images: Annotated[int, Field(ge=0, le=5000)] = 400
    """Images whose features are computed, on the CPU, for neighbors and map; 0 leaves out these and the views.
    Unit: images. Try: 400; 0 if the images are elsewhere."""

    queries: Annotated[int, Field(ge=1, le=40)] = 6
    """Images whose nearest neighbors are shown. Unit: images. Try: 6."""

    seed: Seed = 0
    """Chooses the images. Unit: none. Try: another number for other images."""
