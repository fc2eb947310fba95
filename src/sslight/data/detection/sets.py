"""From a folder to the annotated images to train on and to measure on."""

from pathlib import Path

from sslight.data.detection.coco import read_coco
from sslight.data.detection.instances import DetectionSet
from sslight.data.detection.voc import read_voc

_VOC_TRAIN, _VOC_VAL = ["2007_trainval", "2012_trainval"], ["2007_test"]


def open_detection_sets(
    data: str, *, train_split: list[str], val_split: list[str], masks: bool
) -> tuple[DetectionSet, DetectionSet]:
    """The sets to train on and to measure on, in a COCO or Pascal VOC folder; empty lists mean the usual splits.

    Raises ValueError if the folder is neither, splits are missing or several fit, annotations are wrong, or the two
    sets have different categories.
    """
    root = Path(data).expanduser()
    if (root / "annotations").is_dir():
        train, val = (
            _read_coco_split(root, split, role, masks) for split, role in ((train_split, "train"), (val_split, "val"))
        )
        _check_same_categories(train, val)
        return _with_objects(train), _with_objects(val)
    for folder in (root, root / "VOCdevkit"):
        if any(path.is_dir() for path in folder.glob("VOC2*")):
            if masks:
                raise ValueError("masks=true needs a COCO folder, because VOC's boxes have no masks: leave it out.")
            train = read_voc(folder, train_split or _VOC_TRAIN)
            val = read_voc(folder, val_split or _VOC_VAL, categories=train.categories)
            return _with_objects(train), _with_objects(val)
    state = "contains neither annotations/ (COCO) nor VOC2007/ (Pascal VOC)" if root.is_dir() else "does not exist"
    raise ValueError(f"data={data} {state}: give the folder into which you unpacked the archives.")


def _read_coco_split(root: Path, split: list[str], role: str, masks: bool) -> DetectionSet:
    known = sorted(path.stem.removeprefix("instances_") for path in (root / "annotations").glob("instances_*.json"))
    if len(split) > 1:
        raise ValueError(f"{role}_split={split} names several splits; a COCO folder takes one.")
    names = split or [name for name in known if name.startswith(role)]
    if len(names) != 1 or names[0] not in known:
        listed = f"the splits are {', '.join(known)}" if known else "there is no instances_*.json"
        what = (
            f"{role}_split={names[0]} is not in"
            if split
            else f"{role}_split is not given, and there is not exactly one that fits in"
        )
        raise ValueError(f"{what} {root / 'annotations'}: {listed}.")
    return read_coco(root / "annotations" / f"instances_{names[0]}.json", root / names[0], masks=masks)


def _check_same_categories(train: DetectionSet, val: DetectionSet) -> None:
    known, asked = ({*zip(each.category_keys, each.categories, strict=True)} for each in (train, val))
    if known != asked:
        differing = sorted(known ^ asked)
        shown = ", ".join(f"{key} {name}" for key, name in differing[:3])
        raise ValueError(
            f"{train.split} and {val.split} differ in {len(differing)} categories (the first: {shown}): "
            f"use annotation files of one set."
        )


def _with_objects(images: DetectionSet) -> DetectionSet:
    """The set, unless there is nothing in it to learn from or to find."""
    if not len(images.trainable()):
        number = sum(len(image.instances) for image in images.images)
        what = f"all {number} annotations are crowds or empty boxes" if number else "there is no annotation"
        raise ValueError(f"{images.split} has no object to train or evaluate on ({what}): give a split with objects.")
    return images
