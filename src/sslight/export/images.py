"""The images of an export: opened before the work, and read as the network sees them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

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
    is_tag_table,
    left_out_notes,
    looks_like_several,
    no_readable_image,
    printable,
    read_tags,
    unmatched_notes,
)
from sslight.export.classifier import Classifier
from sslight.export.task import LabeledImages, Task

_BATCH = 32


def open_images(
    paths: list[str], setting: str, data: ExportDataSettings, classifier: Classifier | None, *, table: str | None = None
) -> LabeledImages:
    """A set, with labels if its folders are classes or a ``table`` of labels is given.

    Raises ValueError if it is missing or unreadable, or the table is not of this classifier's kind.
    """
    if table is not None:
        images = _by_table(paths, setting, data, classifier, table)
        unmatched = unmatched_notes([(setting, table, images.source)])
        images = replace(images, notes=[*images.notes, *unmatched])
    else:
        try:
            source = build_source(paths, labeled=True, setting=setting, tar_image=data.tar_image)
            if len(source.classes or ()) < 2:
                raise ValueError("one class is none")
        except ValueError:  # no classes, or no images: then the second attempt says so
            source = build_source(paths, labeled=False, setting=setting, tar_image=data.tar_image)
        images = _by_class(source, classifier)
    check_readable(images.source, setting=setting, limits=ReadLimits(data.max_pixels))
    return images


def _by_class(source: Source, classifier: Classifier | None) -> LabeledImages:
    """Labels as positions among the classes of a classifier of one label an image, and then others."""
    if source.classes is None or source.labels is None:
        return LabeledImages(source)
    known = () if classifier is None else classifier.classes
    single = {} if classifier is None or classifier.multi_label else {name: at for at, name in enumerate(known)}
    positions = torch.tensor([single.get(name, len(known) + at) for at, name in enumerate(source.classes)])
    return LabeledImages(source, source.classes, positions[torch.from_numpy(source.labels)])


def _by_table(
    paths: list[str], setting: str, data: ExportDataSettings, classifier: Classifier | None, table: str
) -> LabeledImages:
    """The classifier says whether labels overlap, so that a table is read as what it must be."""
    prefix, build = f"data.labels={table}", partial(build_source, paths, setting=setting, tar_image=data.tar_image)
    if classifier is not None and classifier.multi_label:
        found = read_tags(build(labeled=False), table, setting, column=data.labels_column, known=classifier.classes)
        differing = {*found.classes} - {*classifier.classes}
        if found.separator is None:  # a column that is not there says nothing of its label
            differing |= {*classifier.classes} - {*found.classes}
        if differing:
            raise ValueError(
                f"{prefix} and the classifier differ in the labels {_some(sorted(differing))}: use the same."
            )
        tags = torch.zeros(len(found.source), len(classifier.classes), dtype=torch.int64)
        tags[:, [classifier.classes.index(name) for name in found.classes]] = torch.from_numpy(found.tags)
        return LabeledImages(found.source, classifier.classes, tags)
    if data.labels_column is None and is_tag_table(table, "data.labels"):
        what = "there is no classifier" if classifier is None else "the classifier gives one class an image"
        raise ValueError(f"{prefix} has a column for each label, but {what}: give a table with lines NAME,LABEL.")
    source = build(labeled=True, labels=table, labels_column=data.labels_column, multi_label=False)
    assert source.classes is not None
    known = () if classifier is None else classifier.classes
    others = [name for name in source.classes if name not in known]
    lists = [name for name in others if looks_like_several(name)]
    several = f"{len(lists)} of the {len(source.classes)} labels look like several"
    if classifier is None:
        notes = [f"{several} in {table} (first: {printable(lists[0])}); each counts as a class."] if lists else []
        return replace(_by_class(source, None), notes=notes)
    if lists:
        raise ValueError(
            f"{prefix}: {several} (first: {printable(lists[0])}), but the classifier gives one class an image: give a "
            "table with lines NAME,LABEL."
        )
    if len(others) == len(source.classes):
        raise ValueError(
            f"{prefix} has none of the classifier's classes: it has {_some(source.classes)}, the classifier "
            f"{_some(classifier.classes)}; use the same names."
        )
    notes = []
    if others:
        are = "is" if len(others) == 1 else "are"
        notes.append(
            f"{len(others)} of the {len(source.classes)} labels in {table} {are} none of the classifier's, so their "
            f"images count for no accuracy (first: {printable(others[0])})."
        )
    return replace(_by_class(source, classifier), notes=notes)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def read_images(
    task: Task, images: LabeledImages, setting: str, number: int
) -> tuple[Tensor, Tensor | None, list[str]]:
    """At most ``number`` images, evenly spread: center views as bytes ``[N, 3, S, S]``, labels or None, and notes.

    Raises ValueError if too many images are unreadable, or fewer than two are readable.
    """
    data = task.settings.data
    chosen = evenly_spread(len(images.source), number)
    bad: list[BadImage] = []
    batches = image_batches(
        images.source,
        size=task.exportable.info.image_size,
        resize=task.resize,
        batch_size=_BATCH,
        workers=0,
        indices=chosen,
        bad=bad,
        limits=ReadLimits(data.max_pixels),
    )
    parts = [(pixels.clone(), indices) for pixels, _, indices in batches]  # their memory is used again
    if sum(len(pixels) for pixels, _ in parts) < 2:
        alone = f"{setting} has a single image: give at least two, better some hundred."
        raise ValueError(no_readable_image(bad, setting=setting) if bad else alone)
    check_bad_share(len(bad), len(chosen), setting, data.max_bad_share, bad)
    pixels, rows = (torch.cat(each) for each in zip(*parts, strict=True))
    notes = [*left_out_notes(len(bad), len(chosen), setting), *images.notes]
    return pixels, None if images.labels is None else images.labels[rows], notes
