"""Settings of ``sslight data pack``."""

import difflib
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from sslight.config.fields import PositiveInt, Section, Workers
from sslight.config.overrides import parse_words


class PackSettings(Section):
    """How a set of images is packed."""

    format: Literal["h5", "tar"] | None = None
    """``h5``: one file of the original's layout; ``tar``: a folder of WebDataset shards. null goes by
    the output's name: h5 for ``*.h5`` and ``*.hdf5``, else tar."""

    short_side: Annotated[int, Field(ge=8)] | None = None
    """Images whose shorter side is longer are made smaller, to this many px. null keeps all as they are."""

    shard_images: PositiveInt | None = None
    """Images in a tar shard. null: about 256 MiB, and at least 16 shards for sets that are large enough."""

    workers: Workers | None = None
    """Processes that read, check and re-encode. null: the cores of this machine; 0: this process alone."""


def build_pack_settings(words: Iterable[str]) -> PackSettings:
    """The settings typed as ``key=value``. Raises ValueError for a wrong name or value."""
    values = parse_words(words)
    for key in values:
        if key not in PackSettings.model_fields:
            near = difflib.get_close_matches(key, PackSettings.model_fields, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(PackSettings.model_fields)}"
            raise ValueError(f"{key} is not a setting of packing: {hint}")
    try:
        return PackSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        rule = first["msg"]
        raise ValueError(
            f"{first['loc'][0]}={first['input']}: {rule[0].lower()}{rule[1:]}; see `sslight data pack --help`"
        ) from None
