"""Settings of ``sslight predict``, ``sslight embed`` and ``sslight select``."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from sslight.config.schema.fields import FilePath, Network, PositiveInt, Section, Side, TarImage, TextPath, Workers


class PassSettings(Section):
    """How a file is applied to images, and where the result goes."""

    suffixes: ClassVar[tuple[str, ...]] = (".csv",)

    output: FilePath
    """The new file to write: .csv for predictions; .npz, .csv or .parquet for features.
    Unit: path. Try: predictions.csv, or features.npz."""

    batch_size: PositiveInt = 64
    """Images computed at once; only affects rounding. Unit: images. Try: 64."""

    devices: Literal["auto", "cpu", "gpu"] = "auto"
    """The one device for weights files: auto (a GPU if there is one), cpu or gpu. Files for devices run on the CPU.
    Unit: name. Try: auto."""

    workers: Workers | None = None
    """Processes that decode; null: none on a CPU, else the cores of this machine. Unit: processes. Try: null."""

    tar_image: TarImage = None

    @field_validator("output")
    @classmethod
    def _is_such_a_file(cls, output: Path) -> Path:
        if output.suffix.lower() not in cls.suffixes:
            raise ValueError(f"must end in {' or '.join(cls.suffixes)}")
        return output


class PredictSettings(PassSettings):
    """How images are classified."""

    explained_by: ClassVar[str] = "sslight config predict.{key}"

    neighbors: PositiveInt | None = None
    """So many of the other images, those whose features are most alike, are named for each image; null: none.
    Unit: images. Try: 5."""


class EmbedSettings(PredictSettings):
    """How features are computed, and where they go."""

    explained_by: ClassVar[str] = "sslight config embed.{key}"
    suffixes: ClassVar[tuple[str, ...]] = (".npz", ".csv", ".parquet")

    network: Network = "student"

    image_size: Side | None = None
    """Side of the center view; null: that of the file. Unit: px. Try: null."""


class SelectSettings(PassSettings):
    """How images are chosen to be labeled."""

    explained_by: ClassVar[str] = "sslight config select.{key}"

    output: FilePath
    """The table to write, a new .csv file; the page that shows the choice lies beside it.
    Unit: path. Try: to_label.csv."""

    num: PositiveInt = 300
    """Images to choose. Unit: images. Try: as many as you can label; if you label fewer, start at the top."""

    labeled: TextPath | None = None
    """A table of images that have labels, or a list of them: these and their like are not chosen again.
    Unit: path. Try: null; to_label.csv with labels filled in for a second round."""

    near_duplicate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Similarity from which on two images are not both chosen; null: five times closer than most are to the next.
    Unit: cosine of centered features. Try: null; 0.9 for frames of videos."""

    network: Network = "student"

    image_size: Side | None = None
    """Side of the center view; null: that of the file. Unit: px. Try: null."""
