"""Annotations of Pascal VOC: one XML file for each image, read without following anything in it."""

import math
from pathlib import Path
from xml.etree import ElementTree

from sslight.data.detection.instances import AnnotatedImage, DetectionSet, Instance

VOC_CATEGORIES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

_SHOWN = 3


def read_voc(root: Path, splits: list[str]) -> DetectionSet:
    """The images of some splits of VOC folders.

    Args:
        root: With ``VOC2007`` and the like in it, each with ``Annotations``, ``ImageSets/Main`` and ``JPEGImages``.
        splits: Year and name, such as ``2007_trainval``.

    Raises:
        ValueError: a split, image or annotation is missing, damaged or has a category that VOC has not; with
            the number of cases and the first few.
    """
    images: list[AnnotatedImage] = []
    for split in splits:
        year, _, name = split.partition("_")
        folder = root / f"VOC{year}"
        images += _read_split(folder, folder / "ImageSets" / "Main" / f"{name}.txt", split)
    return DetectionSet(
        kind="voc",
        name="+".join(splits),
        categories=VOC_CATEGORIES,
        category_keys=range(1, len(VOC_CATEGORIES) + 1),
        images=images,
    )


def _read_split(folder: Path, listed: Path, split: str) -> list[AnnotatedImage]:
    try:
        names = [line.split()[0] for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        raise ValueError(
            f"there is no list {listed} for the split {split}: unpack VOC there, or name another."
        ) from None
    if not names:
        raise ValueError(f"{listed} names no images: unpack VOC there again.")
    for place, suffix in (("Annotations", "xml"), ("JPEGImages", "jpg")):
        present = {path.name for path in (folder / place).glob(f"*.{suffix}")}
        missing = [name for name in names if f"{name}.{suffix}" not in present]
        if missing:
            raise ValueError(
                f"{folder / place} lacks {len(missing)} of the {len(names)} files of {listed.name} (the first: "
                f"{_first([f'{name}.{suffix}' for name in missing])}): unpack all of them."
            )
    images, damaged, strange = [], [], []
    for name in names:
        try:
            images.append(_read_image(folder, name))
        except KeyError as error:
            strange.append(f"{error.args[0]} in {name}.xml")
        except (ValueError, ElementTree.ParseError) as error:
            damaged.append(f"{name}.xml: {error}")
    if strange:
        raise ValueError(
            f"{folder / 'Annotations'} has {len(strange)} files with a category that VOC has not (the first: "
            f"{_first(strange)}): the names are {', '.join(VOC_CATEGORIES)}."
        )
    if damaged:
        raise ValueError(
            f"{folder / 'Annotations'} has {len(damaged)} files that cannot be read (the first: {_first(damaged)}): "
            f"unpack them again."
        )
    return images


def _read_image(folder: Path, name: str) -> AnnotatedImage:
    """One XML file; KeyError for an unknown category, ValueError or ParseError for a damaged file."""
    parser = ElementTree.XMLParser(target=_WithoutDoctype())
    parser.feed((folder / "Annotations" / f"{name}.xml").read_bytes())
    tree: ElementTree.Element = parser.close()
    height, width = (int(_text(tree, f"size/{side}")) for side in ("height", "width"))
    if height < 1 or width < 1:
        raise ValueError("its size is below 1 px")
    return AnnotatedImage(
        key=f"{folder.name.removeprefix('VOC')}/{name}",
        file=folder / "JPEGImages" / f"{name}.jpg",
        height=height,
        width=width,
        instances=tuple(_read_object(element) for element in tree.findall("object")),
    )


def _read_object(element: ElementTree.Element) -> Instance:
    name = _text(element, "name")
    if name not in VOC_CATEGORIES:
        raise KeyError(name)
    # The corners are pixels counted from 1, both inside the box.
    left, top, right, bottom = (float(_text(element, f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax"))
    if not all(math.isfinite(edge) for edge in (left, top, right, bottom)) or right < left or bottom < top:
        raise ValueError(f"the box of a {name} has no size")
    width, height = right - left + 1, bottom - top + 1
    return Instance(
        label=VOC_CATEGORIES.index(name),
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


def _first(values: list[str]) -> str:
    shown = ", ".join(values[:_SHOWN])
    return shown if len(values) <= _SHOWN else f"{shown}, ..."
