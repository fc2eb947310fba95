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
    images: list[AnnotatedImage] = []
    found: list[str] = []
    for split in splits:
        year, _, name = split.partition("_")
        folder = root / f"VOC{year}"
        images += _read_split(folder, folder / "ImageSets" / "Main" / f"{name}.txt", split, found)
    names = tuple(categories or (VOC_CATEGORIES if set(found) <= set(VOC_CATEGORIES) else sorted(found)))
    strange = {label for label, name in enumerate(found) if name not in names}
    if strange:
        files = [image.file.stem for image in images if any(each.label in strange for each in image.instances)]
        raise ValueError(
            f"{'+'.join(splits)} has {len(files)} images with a category that the training set has not "
            f"({first_few(sorted(found[label] for label in strange))}; the first: {first_few(files)}): "
            f"the names are {', '.join(names)}."
        )
    position = {label: names.index(name) for label, name in enumerate(found)}
    return DetectionSet(
        kind="voc",
        split="+".join(splits),
        categories=names,
        category_keys=tuple(range(1, len(names) + 1)),
        images=tuple(
            replace(image, instances=tuple(replace(each, label=position[each.label]) for each in image.instances))
            for image in images
        ),
    )


def _read_split(folder: Path, listed: Path, split: str, found: list[str]) -> list[AnnotatedImage]:
    try:
        names = [line.split()[0] for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        raise ValueError(
            f"there is no list {listed} for the split {split}: unpack VOC there, or name another."
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
            images.append(_read_image(folder, photographs[name], found))
        except (ValueError, ElementTree.ParseError) as error:
            damaged.append(f"{name}.xml: {error}")
    if damaged:
        raise ValueError(
            f"{folder / 'Annotations'} has {len(damaged)} files that cannot be read (the first: {first_few(damaged)}): "
            f"unpack them again."
        )
    return images


def _read_image(folder: Path, photograph: Path, found: list[str]) -> AnnotatedImage:
    """One XML file, with labels that count ``found``, to which new names are added.

    Raises ValueError or ParseError for a damaged file.
    """
    parser = ElementTree.XMLParser(target=_WithoutDoctype())
    parser.feed((folder / "Annotations" / f"{photograph.stem}.xml").read_bytes())
    tree: ElementTree.Element = parser.close()
    height, width = (int(_text(tree, f"size/{side}")) for side in ("height", "width"))
    if height < 1 or width < 1:
        raise ValueError("its size is below 1 px")
    return AnnotatedImage(
        key=f"{folder.name.removeprefix('VOC')}/{photograph.stem}",
        file=photograph,
        height=height,
        width=width,
        instances=tuple(_read_object(element, found) for element in tree.findall("object")),
    )


def _read_object(element: ElementTree.Element, found: list[str]) -> Instance:
    name = _text(element, "name")
    # The corners are pixels counted from 1, both inside the box.
    left, top, right, bottom = (float(_text(element, f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax"))
    if not all(math.isfinite(edge) for edge in (left, top, right, bottom)) or right < left or bottom < top:
        raise ValueError(f"the box of a {name} has no size")
    if name not in found:
        found.append(name)
    width, height = right - left + 1, bottom - top + 1
    return Instance(
        label=found.index(name),
        box=(left - 1, top - 1, width, height),
        area=width * height,
        difficult=(element.findtext("difficult") or "0").strip() == "1",
    )


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"it has no {path}")
    return text.strip()


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses the part of XML in which files can name other files and have text grow without bounds."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise ValueError("it has a document type, which annotations do not need")
