"""Settings of ``sslight data``: how a set of images is packed, and looked at."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sslight.config import fields


class InspectSettings(fields.Section):
    """How a set of images is looked at."""

    explained_by: ClassVar[str] = "sslight config inspect.{key}"

    sample: fields.PositiveInt | None = None
    """Images that are decoded, evenly spread over the set; null decodes all. Unit: images. Try: 5000 of large sets."""

    workers: fields.Workers | None = None
    """Processes that read and decode; null: the cores of this machine; 0: this process alone.
    Unit: processes. Try: null."""

    max_pixels: fields.MaxPixels = fields.MAX_PIXELS
    tar_image: fields.TarImage = None


class PackSettings(fields.Section):
    """How a set of images is packed."""

    explained_by: ClassVar[str] = "sslight config pack.{key}"

    output: fields.FilePath
    """The H5 file, or the folder of tar shards, to write; shards that were interrupted are gone on with.
    Unit: path. Try: shards, or images.h5."""

    format: Literal["h5", "tar"] | None = None
    """What is written. h5: one file of the original's layout; tar: a folder of WebDataset shards; null goes by the name
    of output: h5 for ``*.h5`` and ``*.hdf5``, else tar. Unit: name. Try: null."""

    short_side: Annotated[int, Field(ge=8)] | None = None
    """Images whose shorter side is longer are made smaller, to this; null keeps all as they are.
    Unit: px. Try: twice the global views of training, such as 512."""

    shard_images: fields.PositiveInt | None = None
    """Images in a tar shard; null: about 256 MiB, and at least 16 shards for sets that are large enough.
    Unit: images. Try: null."""

    workers: fields.Workers | None = None
    """Processes that read, check and re-encode; null: the cores of this machine; 0: this process alone.
    Unit: processes. Try: null."""

    max_pixels: fields.MaxPixels = fields.MAX_PIXELS
    tar_image: fields.TarImage = None
