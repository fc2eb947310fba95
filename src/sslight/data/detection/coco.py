"""Annotations in COCO's format, checked before anything is trained on them."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from faster_coco_eval.core import mask as mask_api

from sslight.config.plain_yaml import shown
from sslight.data.detection.instances import AnnotatedImage, DetectionSet, Instance, Segmentation
from sslight.data.sources.names import first_few

_LARGEST_NUMBER = 1e15  # also excludes what is not finite


def read_coco(file: Path, folder: Path, *, masks: bool) -> DetectionSet:
    """The images in ``folder`` that an ``instances_*.json`` describes, with ``masks`` also their segmentations.

    Raises ValueError if there is no such file or folder, it is not in COCO's format, images are missing, ids do
    not match, or boxes or masks cannot be; with the number of cases and the first few.
    """
    content = _read(file)
    images, annotations = content["images"], content["annotations"]
    categories = sorted(content["categories"], key=lambda category: int(category["id"]))
    _check_ids(file, images, annotations, categories)
    paths = _image_paths(folder, [image["file_name"] for image in images])
    rules: dict[str, Callable[[dict[str, Any]], bool]] = {
        "iscrowd is neither 0 nor 1": lambda each: _truth(each.get("iscrowd", 0)) is not None,
        "bbox is not four finite numbers x, y, width ≥ 0, height ≥ 0": lambda each: _is_box(each.get("bbox")),
        "area is not a number": lambda each: _are_finite([each.get("area", 0)]),
    }
    for rule, holds in rules.items():
        _refuse(file, [each["id"] for each in annotations if not holds(each)], "annotation", rule)
    sizes = {image["id"]: (image["height"], image["width"]) for image in images}
    segmentations = _segmentations(file, annotations, sizes) if masks else {}
    position = {category["id"]: index for index, category in enumerate(categories)}
    instances: dict[Any, list[Instance]] = {image["id"]: [] for image in images}
    for each in annotations:
        x, y, width, height = (float(number) for number in each["bbox"])
        instances[each["image_id"]].append(
            Instance(
                label=position[each["category_id"]],
                box=(x, y, width, height),
                area=float(each.get("area", width * height)),
                crowd=bool(_truth(each.get("iscrowd", 0))),
                segmentation=segmentations.get(each["id"]),
            )
        )
    return DetectionSet(
        kind="coco",
        split=file.stem.removeprefix("instances_"),
        categories=tuple(str(category["name"]) for category in categories),
        category_keys=tuple(int(category["id"]) for category in categories),
        images=tuple(
            AnnotatedImage(image["id"], path, *sizes[image["id"]], tuple(instances[image["id"]]))
            for path, image in sorted(zip(paths, images, strict=True), key=lambda pair: str(pair[1]["file_name"]))
        ),
    )


def _read(file: Path) -> dict[str, Any]:
    """The content of an annotation file, with the keys that all of its entries need."""
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise ValueError(f"there is no annotation file {file} ({error.strerror}): check the path.") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{file} is not a JSON file: give COCO's instances_*.json.") from None
    key, whole = (_as_key, "number or text"), (_as_whole, "whole number")
    needed: dict[str, dict[str, tuple[Callable[[Any], Any], str]]] = {
        "images": {"id": key, "file_name": (_as_text, "text"), "height": whole, "width": whole},
        "annotations": {"id": key, "image_id": key, "category_id": whole},
        "categories": {"id": whole, "name": (_as_text, "text")},
    }
    for part, keys in needed.items():
        entries = content.get(part) if isinstance(content, dict) else None
        if not isinstance(entries, list) or (part != "annotations" and not entries):
            raise ValueError(f"{file} has no list of {part}: give a file in COCO's format (instances_*.json).")
        bad = [number for number, entry in enumerate(entries) if not _converted(entry, keys)]
        if bad:
            wanted = ", ".join(f"{key} ({kind})" for key, (_, kind) in keys.items())
            raise ValueError(
                f"{file}: {len(bad)} of {len(entries)} entries of {part} lack one of {wanted} "
                f"(the first: number {first_few(bad)}): repair the file."
            )
    bad_sizes = [image["id"] for image in content["images"] if image["height"] < 1 or image["width"] < 1]
    _refuse(file, bad_sizes, "image", "height or width is below 1")
    return dict(content)


def _converted(entry: Any, keys: Mapping[str, tuple[Callable[[Any], Any], str]]) -> bool:
    """Whether an entry has all keys, which become what they should be."""
    if not isinstance(entry, dict):
        return False
    entry.update({key: as_kind(entry.get(key)) for key, (as_kind, _) in keys.items()})
    return all(entry[key] is not None for key in keys)


_Entries = list[dict[str, Any]]


def _check_ids(file: Path, images: _Entries, annotations: _Entries, categories: _Entries) -> None:
    for entries, kind in ((images, "image"), (annotations, "annotation"), (categories, "category")):
        counts = Counter(entry["id"] for entry in entries)
        _refuse(file, [key for key, count in counts.items() if count > 1], kind, "id occurs more than once")
    image_ids, category_ids = ({entry["id"] for entry in entries} for entries in (images, categories))
    lost = [each["id"] for each in annotations if each["image_id"] not in image_ids]
    _refuse(file, lost, "annotation", "image_id is not among its images")
    unnamed = [each["id"] for each in annotations if each["category_id"] not in category_ids]
    _refuse(file, unnamed, "annotation", "category_id is not in its list of categories")


def _as_key(value: object) -> int | str | None:
    """An id: whole numbers are the same as float or text; other text stays what it is."""
    whole = _as_whole(value)
    return value or None if whole is None and isinstance(value, str) else whole


def _as_whole(value: object) -> int | None:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 20:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST_NUMBER:
        return None
    return int(value) if value == int(value) else None


def _as_text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _truth(value: object) -> bool | None:
    known = {"0": False, "0.0": False, "false": False, "none": False, "1": True, "1.0": True, "true": True}
    return known.get(str(value).strip().lower())


def _image_paths(folder: Path, names: list[str]) -> list[Path]:
    """Where the images are: their names within ``folder``, or beside it, or only the last part of the name in it.

    Names often carry folders of the machine on which they were annotated. One listing serves a flat folder of
    a hundred thousand images.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no image folder {folder}: unpack the images there.")
    outside = [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name]
    if outside:
        raise ValueError(
            f"{len(outside)} file names lead outside {folder} (the first: {shown(first_few(outside))}): repair them."
        )
    present = {entry.name for entry in os.scandir(folder)}

    def place(name: str) -> Path | None:
        relative = name.replace("\\", "/") if "\\" in name and not (folder / name).exists() else name
        last = Path(relative).name
        if relative in present or (folder / relative).is_file():
            return folder / relative
        if relative != last and (folder.parent / relative).is_file():
            return folder.parent / relative
        return folder / last if last in present else None

    places = [place(name) for name in names]
    paths = [path for path in places if path is not None]
    missing = [name for name, path in zip(names, places, strict=True) if path is None]
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} of {len(names)} annotated images (the first: {first_few(missing)}): "
            f"unpack all of them, or give annotations of the existing images only."
        )
    counts = Counter(paths)
    shared = [name for name, path in zip(names, paths, strict=True) if counts[path] > 1]
    if shared:
        raise ValueError(
            f"{len(shared)} file names of {folder} refer to the same file as another (the first: {first_few(shared)}): "
            f"keep their folders separate."
        )
    return paths


def _segmentations(
    file: Path, annotations: list[dict[str, Any]], sizes: Mapping[int, tuple[int, int]]
) -> dict[int, Segmentation]:
    """The masks by annotation, crowds and empty boxes without one included."""
    found: dict[int, Segmentation] = {}
    problems: dict[str, list[int]] = {}
    for each in annotations:
        segmentation = each.get("segmentation")
        if isinstance(segmentation, dict):
            counts = run_lengths(segmentation, sizes[each["image_id"]])
            if counts is None:
                problems.setdefault("run-length mask does not fit its image", []).append(each["id"])
            else:
                height, width = sizes[each["image_id"]]
                found[each["id"]] = mask_api.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        elif not isinstance(segmentation, list) or not segmentation:
            problems.setdefault("segmentation is missing or empty", []).append(each["id"])
        elif not all(_is_polygon(polygon) for polygon in segmentation):
            problems.setdefault("segmentation has a polygon of fewer than three points", []).append(each["id"])
        else:
            found[each["id"]] = segmentation
    for rule, ids in problems.items():
        _refuse(file, ids, "annotation", rule, remedy="repair or remove them, or set masks=false")
    return found


def run_lengths(segmentation: Mapping[str, Any], size: tuple[int, int]) -> list[int] | None:
    """The run lengths of a mask as numbers; None if they do not make up an image of that height and width.

    COCO writes them as a list, or as text: 5 bits a character, least significant first, the sixth saying
    that more follow, and from the third length on the difference from that two before.
    """
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        counts = _unpacked(counts)
    if not isinstance(counts, list) or list(segmentation.get("size", ())) != list(size):
        return None
    if not all(isinstance(count, int) and count >= 0 for count in counts) or sum(counts) != size[0] * size[1]:
        return None
    return counts


def _unpacked(text: str) -> list[int] | None:
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        chunk = ord(character) - 48
        if not 0 <= chunk < 64 or shift > 60:
            return None
        value |= (chunk & 31) << shift
        shift += 5
        if not chunk & 32:
            value -= (1 << shift) if chunk & 16 else 0
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    return None if shift else lengths


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and _are_finite(value) and value[2] >= 0 and value[3] >= 0


def _is_polygon(value: object) -> bool:
    return isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0 and _are_finite(value)


def _are_finite(values: Iterable[object]) -> bool:
    return all(isinstance(value, int | float) and abs(value) < _LARGEST_NUMBER for value in values)


def _refuse(file: Path, ids: list[int], kind: str, rule: str, remedy: str = "repair or remove them") -> None:
    if ids:
        several = "s" if len(ids) > 1 else ""
        raise ValueError(f"{file} has {len(ids)} {kind}{several} whose {rule} ({kind} {first_few(ids)}): {remedy}.")
