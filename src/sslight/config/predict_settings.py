"""Settings of ``sslight predict`` and ``sslight embed``."""

import os
from collections.abc import Sequence
from typing import ClassVar, Literal, TypeVar

from sslight.config.fields import FilePath, Network, PositiveInt, Section, Side, TarImage, Workers
from sslight.config.overrides import build, parse_words


class PredictSettings(Section):
    """How images pass through a file, and where the result goes."""

    explained_by: ClassVar[str] = "sslight predict --help"
    suffixes: ClassVar[tuple[str, ...]] = (".csv",)

    output: FilePath
    """The file to write."""

    batch_size: PositiveInt = 64
    """Images that are computed at once; without influence on the result beyond rounding."""

    device: Literal["cpu", "cuda"] | None = None
    """Where files of weights compute; null: on the GPU if there is one. ONNX and LiteRT files compute on the CPU."""

    workers: Workers | None = None
    """Processes that decode; null: none on a CPU, else the cores of this machine."""

    tar_image: TarImage = None


class EmbedSettings(PredictSettings):
    """The same of features."""

    explained_by: ClassVar[str] = "sslight embed --help"
    suffixes: ClassVar[tuple[str, ...]] = (".npz", ".csv", ".parquet")

    network: Network = "student"

    image_size: Side | None = None
    """Side of the center view in px; null: that of the file."""


_P = TypeVar("_P", bound=PredictSettings)


def build_predict_settings(words: Sequence[str], of: type[_P]) -> tuple[list[str], _P]:
    """The paths that are named, and the settings typed as ``key=value``. Raises ValueError."""
    assignments = [word for word in words if "=" in word and not os.path.exists(word)]  # noqa: PTH110 - never raises
    settings = build(of, parse_words(assignments, of))
    if settings.output.suffix.lower() not in of.suffixes:
        raise ValueError(f"output={settings.output} must end in {' or '.join(of.suffixes)}: name such a file.")
    return [word for word in words if word not in assignments], settings
