"""Settings of ``sslight predict`` and ``sslight embed``."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import field_validator

from sslight.config.fields import FilePath, Network, PositiveInt, Section, Side, TarImage, Workers


class PredictSettings(Section):
    """How images pass through a file, and where the result goes."""

    explained_by: ClassVar[str] = "sslight config predict.{key}"
    suffixes: ClassVar[tuple[str, ...]] = (".csv",)

    output: FilePath
    """The file to write, a new one: .csv of predictions; .npz, .csv or .parquet of features.
    Unit: path. Try: predictions.csv, or features.npz."""

    batch_size: PositiveInt = 64
    """Images that are computed at once; without influence on the result beyond rounding. Unit: images. Try: 64."""

    device: Literal["cpu", "cuda"] | None = None
    """Where files of weights compute; null: on the GPU if there is one. ONNX and LiteRT files compute on the CPU.
    Unit: name. Try: null."""

    workers: Workers | None = None
    """Processes that decode; null: none on a CPU, else the cores of this machine. Unit: processes. Try: null."""

    tar_image: TarImage = None

    @field_validator("output")
    @classmethod
    def _is_such_a_file(cls, output: Path) -> Path:
        if output.suffix.lower() not in cls.suffixes:
            raise ValueError(f"must end in {' or '.join(cls.suffixes)}")
        return output


class EmbedSettings(PredictSettings):
    """The same of features."""

    explained_by: ClassVar[str] = "sslight config embed.{key}"
    suffixes: ClassVar[tuple[str, ...]] = (".npz", ".csv", ".parquet")

    network: Network = "student"

    image_size: Side | None = None
    """Side of the center view; null: that of the file. Unit: px. Try: null."""
