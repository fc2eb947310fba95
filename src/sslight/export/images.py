"""The real images by which an export is checked and calibrated."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslight.config.export_settings import ExportDataSettings
from sslight.data import BadImage, ReadLimits, Source, build_source, check_readable, image_batches, no_readable_image

_BATCH = 32


@dataclass(frozen=True)
class ExportImages:
    """Some images of a set, evenly spread over it.

    Attributes:
        source: The whole set; with labels if its folders are classes.
        number: How many are used at most.
        setting: Its name, for messages.
        limits: What reading and decoding one image may take.
    """

    source: Source
    number: int
    setting: str
    limits: ReadLimits

    @classmethod
    def build(cls, paths: list[str], number: int, setting: str, data: ExportDataSettings) -> "ExportImages":
        """Raises ValueError if the set is missing or unreadable."""
        try:
            source = build_source(paths, labeled=True, setting=setting, tar_image=data.tar_image)
            if len(source.classes or ()) < 2:
                raise ValueError("one class is none")
        except ValueError:  # no classes, or no images: then the second attempt says so
            source = build_source(paths, labeled=False, setting=setting, tar_image=data.tar_image)
        limits = ReadLimits(data.max_pixels)
        check_readable(source, setting=setting, limits=limits)
        return cls(source, number, setting, limits)

    def read(self, *, size: int, resize: int | None, max_bad_share: float) -> tuple[Tensor, Tensor | None]:
        """Centre views as bytes ``[N, 3, S, S]``, and labels ``[N]`` or None.

        Raises:
            ValueError: too many images are unreadable, or fewer than two are readable.
        """
        chosen = np.unique(np.linspace(0, len(self.source) - 1, self.number).astype(np.int64))
        bad: list[BadImage] = []
        batches = image_batches(
            self.source,
            size=size,
            resize=resize,
            batch_size=_BATCH,
            workers=0,
            indices=chosen,
            bad=bad,
            limits=self.limits,
        )
        parts = [(images.clone(), labels) for images, labels, _ in batches]  # their memory is used again
        num_readable = sum(len(images) for images, _ in parts)
        if num_readable < 2:
            raise ValueError(no_readable_image(bad, setting=self.setting) if bad else self._too_few())
        if len(bad) > max_bad_share * len(chosen):
            raise ValueError(
                f"{len(bad)} of the {len(chosen)} images of {self.setting} are unreadable, more than "
                f"data.max_bad_share={max_bad_share:g} allows: repair or remove them, or raise data.max_bad_share."
            )
        images = torch.cat([images for images, _ in parts])
        labels = [labels for _, labels in parts if labels is not None]
        return images, torch.cat(labels) if labels else None

    def _too_few(self) -> str:
        return f"{self.setting} has a single image: give at least two, better some hundred."
