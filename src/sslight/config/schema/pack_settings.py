"""Settings of ``sslight data``: how a set of images is packed and inspected."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sslight.config.schema import fields


class InspectSettings(fields.Section):
    """How a set of images is inspected."""

    explained_by: ClassVar[str] = "sslight config inspect.{key}"

    sample: fields.PositiveInt | None = None
    """Images to decode, evenly spread over the set; null decodes all. Unit: images. Try: 5000 for large sets."""

    workers: fields.Workers | None = None
    """Processes that read and decode; null: the cores of this machine; 0: this process alone.
    Unit: processes. Try: null."""

    max_pixels: fields.MaxPixels = fields.MAX_PIXELS
    tar_image: fields.TarImage = None


class PackSettings(fields.Section):
    """How a set of images is packed."""

    explained_by: ClassVar[str] = "sslight config pack.{key}"

    output: fields.FilePath
    """The H5 file or the folder of tar shards to write; interrupted shards are continued.
    Unit: path. Try: shards, or images.h5."""

    format: Literal["h5", "tar"] | None = None
    """What to write. h5: one file in the original's layout; tar: a folder of WebDataset shards; null: by the name
    of output, h5 for ``*.h5`` and ``*.hdf5``, else tar. Unit: name. Try: null."""

    short_side: Annotated[int, Field(ge=8)] | None = None
    """Larger images are resized to this shorter side; null keeps all images unchanged.
    Unit: px. Try: twice the global views of training, such as 512."""

    shard_images: fields.PositiveInt | None = None
    """Images in a tar shard; null: about 256 MiB, and at least 16 shards if the set is large enough.
    Unit: images. Try: null."""

    workers: fields.Workers | None = None
    """Processes that read, check and re-encode; null: the cores of this machine; 0: this process alone.
    Unit: processes. Try: null."""

    max_pixels: fields.MaxPixels = fields.MAX_PIXELS
    tar_image: fields.TarImage = None
