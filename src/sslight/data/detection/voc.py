"""Annotations of Pascal VOC: one XML file for each image, read without following anything in it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from sslight.data.detection.instances import AnnotatedImage, DetectionSet, Instance
from sslight.data.sources.names import first_few
from sslight.data.sources.suffixes import IMAGE_SUFFIXES

VOC_CATEGORIES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def read_voc(root: Path, splits: list[str], *, categories: Sequence[str] | None = None) -> DetectionSet:
    """The images of some splits of VOC folders.

    ``root`` has ``VOC2007`` and the like in it, each with ``Annotations``, ``ImageSets/Main`` and ``JPEGImages``;
    splits are year and name, such as ``2007_trainval``. The categories are those given (of the set that is trained
    on), else VOC's, or, where a name is none of them, all names that are found, sorted.

    Raises ValueError if a split, image or annotation is missing, damaged or has a category that ``categories`` lack;
    with the number of cases and the first few.
    """
    read = [pair for split in splits for pair in _read_split(root, split)]
    found = sorted({name for _, objects in read for name, _ in objects})
    names = tuple(categories or (VOC_CATEGORIES if set(found) <= set(VOC_CATEGORIES) else found))
    strange = [name for name in found if name not in names]
    if strange:
        files = [image.file.stem for image, objects in read if any(name in strange for name, _ in objects)]
        raise ValueError(
            f"{'+'.join(splits)} has {len(files)} images with a category that the training set does not have "
            f"({first_few(strange)}; the first: {first_few(files)}): the names are {', '.join(names)}."
        )
    images = [
        replace(image, instances=tuple(replace(each, label=names.index(name)) for name, each in objects))
        for image, objects in read
    ]
    keys = tuple(range(1, len(names) + 1))
    return DetectionSet(kind="voc", split="+".join(splits), categories=names, category_keys=keys, images=images)


_Objects = list[tuple[str, Instance]]
"""The category of each object, and what else is known of it; its label is not."""


def _read_split(root: Path, split: str) -> list[tuple[AnnotatedImage, _Objects]]:
    year, _, name = split.partition("_")
    folder = root / f"VOC{year}"
    listed = folder / "ImageSets" / "Main" / f"{name}.txt"
    try:
        names = [line.split()[0] for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        raise ValueError(
            f"there is no list {listed} for the split {split}: unpack VOC there, or name another split."
        ) from None
    if not names:
        raise ValueError(f"{listed} names no images: unpack VOC there again.")
    images_there = (path for path in (folder / "JPEGImages").glob("*") if path.name.lower().endswith(IMAGE_SUFFIXES))
    photographs = {path.stem: path for path in images_there}
    annotated = {path.stem for path in (folder / "Annotations").glob("*.xml")}
    for place, suffix, present in (("Annotations", "xml", annotated), ("JPEGImages", "jpg", set(photographs))):
        missing = [name for name in names if name not in present]
        if missing:
            raise ValueError(
                f"{folder / place} lacks {len(missing)} of the {len(names)} files of {listed.name} (the first: "
                f"{first_few([f'{name}.{suffix}' for name in missing])}): unpack all of them."
            )
    images, damaged = [], []
    for name in names:
        try:
            images.append(_read_image(folder, photographs[name]))
        except (ValueError, ElementTree.ParseError) as error:
            damaged.append(f"{name}.xml: {error}")
    if damaged:
        raise ValueError(
            f"{folder / 'Annotations'} has {len(damaged)} files that cannot be read (the first: {first_few(damaged)}): "
            f"unpack them again."
        )
    return images


def _read_image(folder: Path, photograph: Path) -> tuple[AnnotatedImage, _Objects]:
    """What one XML file says. Raises ValueError or ParseError for a damaged one."""
    parser = ElementTree.XMLParser(target=_WithoutDoctype())
    parser.feed((folder / "Annotations" / f"{photograph.stem}.xml").read_bytes())
    tree: ElementTree.Element = parser.close()
    height, width = (int(_text(tree, f"size/{side}")) for side in ("height", "width"))
    if height < 1 or width < 1:
        raise ValueError("its size is below 1 px")
    key = f"{folder.name.removeprefix('VOC')}/{photograph.stem}"
    objects = [_read_object(element) for element in tree.findall("object")]
    return AnnotatedImage(key, photograph, height, width, instances=()), objects


def _read_object(element: ElementTree.Element) -> tuple[str, Instance]:
    name = _text(element, "name")
    # The corners are pixels counted from 1, both inside the box.
    left, top, right, bottom = (float(_text(element, f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax"))
    if not all(math.isfinite(edge) for edge in (left, top, right, bottom)) or right < left or bottom < top:
        raise ValueError(f"the box of a {name} has no size")
    width, height = right - left + 1, bottom - top + 1
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    return name, Instance(-1, (left - 1, top - 1, width, height), area=width * height, difficult=difficult)


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"it has no {path}")
    return text.strip()


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses the part of XML in which files can name other files and have text grow without bounds."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise ValueError("it has a document type, which annotations must not have")
