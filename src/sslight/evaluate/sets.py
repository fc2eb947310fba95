"""The labeled images of an evaluation, and what is refused about them before any work."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from sslight.config import LABELED, EvaluateSettings, FinetuneSettings
from sslight.data import Source, SubsetSource, build_source, labels_in, select_subset


@dataclass(frozen=True)
class LabeledSets:
    """Training and validation images, with labels that are positions in ``classes``."""

    classes: tuple[str, ...]  # of data.train
    train: Source
    train_labels: npt.NDArray[np.int64]  # [M]
    val: Source
    val_labels: npt.NDArray[np.int64]  # [N]
    train_share: float  # share of data.train that is used, 0–1
    notes: list[str]  # what a reader of the result must know, a sentence each


def build_sets(settings: EvaluateSettings | FinetuneSettings) -> LabeledSets:
    """The sets that the settings name.

    ValueError if a set is missing, has no labels, or one class only; if classes of data.val are not in data.train; or
    if there are fewer training images than neighbors.
    """
    data = settings.data
    for setting, paths in (("data.train", data.train), ("data.val", data.val)):
        if not paths:
            raise ValueError(f"{setting} is not set: give labeled images, such as {setting}=FOLDER with class folders.")
    build = partial(build_source, labeled=True, labels_column=data.labels_column, tar_image=data.tar_image)
    if data.subset == LABELED and not data.labels:
        raise ValueError(f"data.subset={LABELED} needs a table of labels: set data.labels.")
    train = build(data.train, labels=data.labels, only_labeled=data.subset == LABELED)
    val = build(data.val, setting="data.val", labels=data.val_labels)
    assert train.classes is not None
    if len(train.classes) < 2:
        raise ValueError(
            f"data.train={', '.join(data.train)} has only the class {train.classes[0]}: give images "
            f"of at least two classes."
        )
    try:
        val_labels = labels_in(val, train.classes)
    except ValueError as error:
        raise ValueError(f"data.val={', '.join(data.val)}: {error}.") from None
    whole = len(train)
    if data.subset == LABELED:
        assert isinstance(train, SubsetSource)
        whole = len(train.whole)
    elif data.subset is not None:
        train = SubsetSource(train, select_subset(train, data.subset, data.subset_seed))
    assert train.labels is not None
    assert train.classes is not None
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
    return LabeledSets(
        classes=train.classes,
        train=train,
        train_labels=train.labels,
        val=val,
        val_labels=val_labels,
        train_share=len(train) / whole,
        notes=class_notes(train.classes, train.labels, val_labels),
    )


def left_out_notes(number: int, total: int, what: str) -> list[str]:
    """A sentence if some of the images of ``what`` are unreadable."""
    return [f"{number:,} of the {total:,} images of {what} left out as unreadable."] if number else []


def class_counts(labels: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.int64]:
    """Images of each class, ``[C]``; labels are ``[N]``, or ``[N, C]`` of 0 and 1."""
    found: npt.NDArray[np.int64] = labels.sum(0) if labels.ndim == 2 else np.bincount(labels, minlength=num_classes)
    return found


def class_notes(
    classes: tuple[str, ...], train_labels: npt.NDArray[np.int64], val_labels: npt.NDArray[np.int64]
) -> list[str]:
    """A sentence for each set in which classes have no image; labels as for :func:`class_counts`."""
    notes = []
    for labels, name in ((train_labels, "data.train"), (val_labels, "data.val")):
        without = [classes[i] for i in np.flatnonzero(class_counts(labels, len(classes)) == 0)]
        if without:
            notes.append(f"{len(without)} of {len(classes)} classes have no image in {name} (first: {without[0]}).")
    return notes
