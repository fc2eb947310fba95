"""Settings of ``sslight data pack``."""

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sslight.config.fields import MAX_PIXELS, MaxPixels, PositiveInt, Section, Workers
from sslight.config.overrides import build, parse_words


class PackSettings(Section):
    """How a set of images is packed."""

    explained_by: ClassVar[str] = "sslight data pack --help"

    format: Literal["h5", "tar"] | None = None
    """``h5``: one file of the original's layout; ``tar``: a folder of WebDataset shards. null goes by
    the output's name: h5 for ``*.h5`` and ``*.hdf5``, else tar."""

    short_side: Annotated[int, Field(ge=8)] | None = None
    """Images whose shorter side is longer are made smaller, to this many px. null keeps all as they are."""

    shard_images: PositiveInt | None = None
    """Images in a tar shard. null: about 256 MiB, and at least 16 shards for sets that are large enough."""

    tar_image: str | None = None
    """Which image is packed of a sample that holds several, in tar shards: its suffix, or ``all``."""

    max_pixels: MaxPixels = MAX_PIXELS

    workers: Workers | None = None
    """Processes that read, check and re-encode. null: the cores of this machine; 0: this process alone."""


def build_pack_settings(words: Iterable[str]) -> PackSettings:
    """The settings typed as ``key=value``. Raises ValueError for a wrong name or value."""
    return build(PackSettings, parse_words(words, PackSettings))
