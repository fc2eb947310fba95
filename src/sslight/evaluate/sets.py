"""The labeled images of an evaluation, and what is refused about them before any work."""

import os
import unicodedata
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from sslight.config import LABELED, EvaluateSettings, FinetuneSettings
from sslight.data import (
    Source,
    SubsetSource,
    build_source,
    is_tag_table,
    is_utf8,
    labels_in,
    printable,
    read_tags,
    select_subset,
    source_builder,
    unmatched_notes,
)

_EMPTY = ("nan", "<na>", "na", "null")  # what pandas, R and databases write for nothing


@dataclass(frozen=True)
class LabeledSets:
    """Training and validation images, with labels that are positions in ``classes``.

    Of images with several labels, these are 0 or 1 for each class, ``[M, C]`` and ``[N, C]``.
    """

    classes: tuple[str, ...]  # of data.train
    train: Source
    train_labels: npt.NDArray[np.int64]  # [M]
    val: Source
    val_labels: npt.NDArray[np.int64]  # [N]
    train_share: float  # share of data.train that is used, 0–1
    notes: list[str]  # what a reader of the result must know, a sentence each


def build_sets(settings: EvaluateSettings | FinetuneSettings) -> LabeledSets:
    """The sets that the settings name.

    ValueError if a set is missing, has no labels, or one class only; if classes of data.val are not in data.train, or
    are not text; or if there are fewer training images than neighbors.
    """
    data = settings.data
    for setting, paths in (("data.train", data.train), ("data.val", data.val)):
        if not paths:
            raise ValueError(f"{setting} is not set: give labeled images, such as {setting}=FOLDER with class folders.")
    wanted = {f"data.subset={LABELED}": data.subset == LABELED, "data.multi_label=true": data.multi_label is True}
    for setting, is_set in wanted.items():
        if is_set and not data.labels:
            raise ValueError(f"{setting} needs a table of labels: set data.labels.")
    if isinstance(settings, FinetuneSettings) and _has_several_labels(settings):
        train, val, classes, train_labels, val_labels = _tagged(settings)
    else:
        train, val, classes, train_labels, val_labels = _classified(settings)
    if len(classes) < 2:
        has = f"only the class {classes[0]}" if classes else "no label at all"
        raise ValueError(f"data.train={', '.join(data.train)} has {has}: give images of at least two classes.")
    if wrong := [name for name in classes if not is_utf8(name)]:
        raise ValueError(f"data.train has the class {printable(wrong[0])}, which is not UTF-8 text: rename it.")
    whole = len(train)
    if data.subset == LABELED:
        assert isinstance(train, SubsetSource)
        whole = len(train.whole)
    elif data.subset is not None:
        chosen = select_subset(train, data.subset, data.subset_seed)
        train, train_labels = SubsetSource(train, chosen), train_labels[chosen]
    if not train_labels.any() and train_labels.ndim == 2:
        raise ValueError(f"data.labels={data.labels} gives no image of data.train a label: correct the table.")
    if (
        isinstance(settings, EvaluateSettings)
        and settings.protocol == "knn"
        and settings.knn.k
        and settings.knn.k[-1] > len(train)
    ):
        raise ValueError(
            f"knn.k={settings.knn.k[-1]} neighbors are more than the {len(train)} training images: "
            f"set knn.k to numbers of at most {len(train)}, such as knn.k=[1, 10]."
        )
    notes = [
        *shared_notes(train, val, "data.train"),
        *unmatched_notes([("data.train", data.labels, train), ("data.val", data.val_labels, val)]),
        *class_notes(classes, train_labels, val_labels),
    ]
    notes += [
        f"{name} is a class of the table, but some programs write it for an empty cell; if it is none, empty these "
        "cells and set data.subset=labeled (and leave such images out of data.val)."
        for name in classes
        if data.labels and name.lower() in _EMPTY
    ]
    return LabeledSets(classes, train, train_labels, val, val_labels, len(train) / whole, notes)


_Sets = tuple[Source, Source, tuple[str, ...], npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""data.train, data.val, the classes, and the labels of both."""


def _classified(settings: EvaluateSettings | FinetuneSettings) -> _Sets:
    """The sets of images with one class each."""
    data = settings.data
    build = partial(source_builder(data), labeled=True)
    train = build(data.train, labels=data.labels, only_labeled=data.subset == LABELED)
    val = build(data.val, setting="data.val", labels=data.val_labels)
    assert train.classes is not None
    assert train.labels is not None
    try:
        return train, val, train.classes, train.labels, labels_in(val, train.classes)
    except ValueError as error:
        unmatched = unmatched_notes([("data.train", data.labels, train), ("data.val", data.val_labels, val)])
        raise ValueError(" ".join([f"data.val={', '.join(data.val)}: {error}.", *unmatched])) from None


def _has_several_labels(settings: FinetuneSettings) -> bool:
    data = settings.data
    if data.multi_label is not None or not data.labels or data.labels_column:
        return bool(data.multi_label)
    return is_tag_table(data.labels, "data.labels")


def _tagged(settings: FinetuneSettings) -> _Sets:
    """The sets of images with any number of labels."""
    data = settings.data
    assert data.labels is not None
    if data.val_labels is None:
        raise ValueError(
            "data.val_labels is not set: data.labels gives several labels an image, and data.val needs a table too."
        )
    build = partial(build_source, labeled=False, tar_image=data.tar_image)
    read = partial(read_tags, column=data.labels_column)
    train = read(build(data.train), data.labels, "data.train", only_labeled=data.subset == LABELED)
    val = read(build(data.val, setting="data.val"), data.val_labels, "data.val", known=train.classes)
    missing = {*val.classes} - {*train.classes}
    if val.separator is None:  # a column that is not there says nothing of its label
        missing |= {*train.classes} - {*val.classes}
    if missing:
        raise ValueError(
            f"data.labels and data.val_labels differ in the labels {', '.join(sorted(missing))}: use the same."
        )
    val_tags = np.zeros((len(val.source), len(train.classes)), dtype=np.int64)
    val_tags[:, [train.classes.index(name) for name in val.classes]] = val.tags
    return train.source, val.source, train.classes, train.tags, val_tags


def shared_notes(train: Source, val: Source, name: str) -> list[str]:
    """A sentence if images of data.val are also in ``train``, the set of the setting ``name``.

    They are told by where they lie, whatever way to a folder the settings name. Links to single files are not followed.
    """
    folder_of = cache(os.path.realpath)

    def place(source: Source, index: int) -> tuple[str, str]:
        folder, _, file = source.locate(index).rpartition("/")
        return folder_of(folder), file

    def last_part(source: Source, index: int) -> str:  # much cheaper, and mostly enough
        return source.name(index).rpartition("/")[2]

    names = {last_part(val, index) for index in range(len(val))}
    alike = [index for index in range(len(train)) if last_part(train, index) in names]
    known = {place(val, index) for index in range(len(val))} if alike else set()
    shared = len({place(train, index) for index in alike} & known)
    if not shared:
        return []
    return [f"{shared:,} images of data.val are also in {name}, so the accuracy is too high."]


def class_counts(labels: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.int64]:
    """Images of each class, ``[C]``; labels are ``[N]``, or ``[N, C]`` of 0 and 1."""
    found: npt.NDArray[np.int64] = labels.sum(0) if labels.ndim == 2 else np.bincount(labels, minlength=num_classes)
    return found


def class_notes(
    classes: tuple[str, ...], train_labels: npt.NDArray[np.int64], val_labels: npt.NDArray[np.int64]
) -> list[str]:
    """A sentence for each set in which classes have no image, and for names of classes that are nearly the same.

    Labels as for :func:`class_counts`.
    """
    notes = []
    for labels, name in ((train_labels, "data.train"), (val_labels, "data.val")):
        without = [classes[i] for i in np.flatnonzero(class_counts(labels, len(classes)) == 0)]
        if without:
            notes.append(f"{len(without)} of {len(classes)} classes have no image in {name} (first: {without[0]}).")
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault("".join(unicodedata.normalize("NFKC", name).casefold().split()), []).append(name)
    notes += [
        f"the classes {' and '.join(names)} differ only in case, in spaces or in how accents are stored; if they are "
        "one, write them alike."
        for names in alike.values()
        if len(names) > 1
    ]
    return notes
