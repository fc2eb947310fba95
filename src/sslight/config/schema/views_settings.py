"""Settings of ``sslight views``: which recipes are shown, and how."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from sslight.config.schema.fields import FilePath, Paths, Section, Seed, TarImage


class ViewsPageSettings(Section):
    """What a page about views shows, and where it is written."""

    explained_by: ClassVar[str] = "sslight config views.{key}"

    recipe: Paths = []
    """Recipes to show; the others are compared with the first. A single one is shown next to its
    baseline. Empty: the CNN recipes of DINO. Unit: name(s) or path(s). Try: the one you want to run."""

    output: FilePath = Path("views")
    """The folder to write; new, empty, or with an earlier page. Unit: path. Try: views."""

    images: Annotated[int, Field(ge=1, le=24)] = 4
    """Images to show. Unit: images. Try: 4."""

    draws: Annotated[int, Field(ge=100, le=1_000_000)] = 4000
    """How often the views are drawn for the numbers. Unit: draws. Try: 4000."""

    seed: Seed = 0
    """Chooses the images; views are those of the first epoch of a run with this seed.
    Unit: none. Try: another number for other images."""

    tar_image: TarImage = None
