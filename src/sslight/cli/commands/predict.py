"""``sslight predict`` and ``sslight embed``: apply a file to images."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sslight.cli.failures import beside_the_first
from sslight.cli.grammar import Words
from sslight.cli.terminal import AsJson, facts, show
from sslight.config import EmbedSettings, PredictSettings, read_words, take_settings

if TYPE_CHECKING:
    from sslight.data import BadImage


def predict(words: Words = None, as_json: AsJson = False) -> None:
    """Classify images: names, classes and probabilities as a CSV file.

    The same command continues after an interruption. Unreadable images are listed beside the result.
    """
    (model, *images), typed = read_words("predict", words)
    settings = take_settings(typed, PredictSettings)
    from sslight.api import predict as api

    with beside_the_first(settings.output):
        found = api.predict(images, model, **settings.model_dump())
    counts = Counter(found.labels)
    said = ", ".join(f"{number:,} {name or '(none)'}" for name, number in counts.most_common(8))
    said += " and others" if len(counts) > 8 else ""
    _show({"classes": counts}, ("classes", said), settings.output, found.names, found.unreadable, as_json)


def embed(words: Words = None, as_json: AsJson = False) -> None:
    """Compute features of images: names and vectors as .npz, .csv or .parquet.

    The same command continues after an interruption. Unreadable images are listed beside the result.
    """
    (model, *images), typed = read_words("embed", words)
    settings = take_settings(typed, EmbedSettings)
    from sslight.api import predict as api

    with beside_the_first(settings.output):
        found = api.embed(images, model, **settings.model_dump())
    size = found.features.shape[1]
    _show({"num_features": size}, ("features", str(size)), settings.output, found.names, found.unreadable, as_json)


def _show(
    content: dict[str, object],
    row: tuple[str, str],
    output: Path,
    names: Sequence[str],
    unreadable: "Sequence[BadImage]",
    as_json: bool,
) -> None:
    from sslight.api.file_pass import listing_of
    from sslight.train.machine.devices import own_share

    listed = f"{len(unreadable):,}, listed in {listing_of(output)}" if unreadable else None
    if number := own_share().number:
        print(
            f"process {number} has computed {len(names):,} images; the first process writes {output}", file=sys.stderr
        )
        return
    rows = [("images", f"{len(names):,}"), row, ("unreadable", listed), ("result", str(output))]
    every = {"output": output, "images": len(names), **content, "unreadable": [asdict(image) for image in unreadable]}
    show(rows, every, facts, as_json=as_json)
