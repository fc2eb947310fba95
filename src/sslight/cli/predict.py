"""``sslight predict`` and ``sslight embed``: images through a file."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sslight.cli.terminal import AsJson, facts, show
from sslight.config import EmbedSettings, PredictSettings, build_predict_settings

if TYPE_CHECKING:
    from sslight.data import BadImage

_File = Annotated[
    str,
    typer.Argument(
        help="A run folder, a classifier or an export (.safetensors, .onnx, .tflite); for embed also a checkpoint, "
        "timm:NAME.TAG or timm:NAME@FILE.",
        show_default=False,
    ),
]
_Images = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGES... output=FILE [KEY=VALUE]...",
        help="A folder, an H5 file, tar shards, or image files · output=FILE · batch_size=N (64) · device=cpu, "
        "cuda · workers=N · tar_image=SUFFIX; for embed also image_size=N · network=teacher.",
        show_default=False,
    ),
]


def predict(file: _File, words: _Images, as_json: AsJson = False) -> None:
    """Classify images: names, classes and probabilities as a CSV file.

    What an interrupted command has done is not done again. Unreadable images are listed beside the result.

    sslight predict runs/classifier photos output=predictions.csv
    """
    images, settings = build_predict_settings([file, *words], PredictSettings)
    _check_words(images, "predict")
    from sslight.api import predict as api

    found = api.predict(images[1:], images[0], **settings.model_dump())
    counts = Counter(found.labels)
    said = ", ".join(f"{number:,} {name or '(none)'}" for name, number in counts.most_common(8))
    said += " and others" if len(counts) > 8 else ""
    _show({"classes": counts}, ("classes", said), settings.output, found.names, found.unreadable, as_json)


def embed(file: _File, words: _Images, as_json: AsJson = False) -> None:
    """Compute the features of images: names and vectors as .npz, .csv or .parquet.

    What an interrupted command has done is not done again. Unreadable images are listed beside the result.

    sslight embed runs/first photos output=features.npz
    """
    images, settings = build_predict_settings([file, *words], EmbedSettings)
    _check_words(images, "embed")
    from sslight.api import predict as api

    found = api.embed(images[1:], images[0], **settings.model_dump())
    size = found.features.shape[1]
    _show({"num_features": size}, ("features", str(size)), settings.output, found.names, found.unreadable, as_json)


def _check_words(paths: Sequence[str], command: str) -> None:
    if len(paths) < 2:
        raise ValueError(f"a file and images are needed: sslight {command} FILE IMAGES output=...")


def _show(
    content: dict[str, object],
    row: tuple[str, str],
    output: Path,
    names: Sequence[str],
    unreadable: "Sequence[BadImage]",
    as_json: bool,
) -> None:
    listed = f"{len(unreadable):,}, listed in {output.with_suffix('.bad_images.csv')}" if unreadable else None
    rows = [("images", f"{len(names):,}"), row, ("unreadable", listed), ("result", str(output))]
    every = {"output": output, "images": len(names), **content, "unreadable": [asdict(image) for image in unreadable]}
    show(rows, every, facts, as_json=as_json)
