"""The images of an export: opened before the work, and read as the network sees them."""

import torch
from torch import Tensor

from sslight.config.schema.export_settings import ExportDataSettings
from sslight.data import (
    BadImage,
    ReadLimits,
    Source,
    build_source,
    check_bad_share,
    check_readable,
    evenly_spread,
    image_batches,
    no_readable_image,
)
from sslight.export.task import Task

_BATCH = 32


def open_images(paths: list[str], setting: str, data: ExportDataSettings) -> Source:
    """A set, with labels if its folders are classes. Raises ValueError if it is missing or unreadable."""
    try:
        source = build_source(paths, labeled=True, setting=setting, tar_image=data.tar_image)
        if len(source.classes or ()) < 2:
            raise ValueError("one class is none")
    except ValueError:  # no classes, or no images: then the second attempt says so
        source = build_source(paths, labeled=False, setting=setting, tar_image=data.tar_image)
    check_readable(source, setting=setting, limits=ReadLimits(data.max_pixels))
    return source


def read_images(task: Task, source: Source, setting: str, number: int) -> tuple[Tensor, Tensor | None]:
    """At most ``number`` images, evenly spread: center views as bytes ``[N, 3, S, S]``, and labels ``[N]`` or None.

    Labels are positions among the classes of the classifier, if there is one, and then others that it does not have.
    Raises ValueError if too many images are unreadable, or fewer than two are readable.
    """
    data = task.settings.data
    chosen = evenly_spread(len(source), number)
    bad: list[BadImage] = []
    batches = image_batches(
        source,
        size=task.exportable.info.image_size,
        resize=task.resize,
        batch_size=_BATCH,
        workers=0,
        indices=chosen,
        bad=bad,
        limits=ReadLimits(data.max_pixels),
    )
    parts = [(images.clone(), labels) for images, labels, _ in batches]  # their memory is used again
    if sum(len(images) for images, _ in parts) < 2:
        alone = f"{setting} has a single image: give at least two, better some hundred."
        raise ValueError(no_readable_image(bad, setting=setting) if bad else alone)
    check_bad_share(len(bad), len(chosen), setting, data.max_bad_share, bad)
    labels = [labels for _, labels in parts if labels is not None]
    return torch.cat([images for images, _ in parts]), _positions(task, source)[torch.cat(labels)] if labels else None


def _positions(task: Task, source: Source) -> Tensor:
    """Of each class of the source, by its name."""
    assert source.classes is not None
    classifier = task.exportable.classifier
    known = () if classifier is None else classifier.classes
    single = {} if classifier is None or classifier.multi_label else {name: at for at, name in enumerate(known)}
    return torch.tensor([single.get(name, len(known) + at) for at, name in enumerate(source.classes)])
