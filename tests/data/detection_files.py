"""Small COCO and Pascal VOC folders of drawn rectangles for the tests of detection."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CATEGORIES = [{"id": 7, "name": "red thing"}, {"id": 3, "name": "green thing"}, {"id": 90, "name": "blue thing"}]
_COLOURS = {7: (220, 30, 30), 3: (30, 200, 30), 90: (30, 30, 230)}


def coco_content(split: str, number: int = 6, height: int = 48, width: int = 64) -> dict[str, Any]:
    """The content of an annotation file: one to three rectangles an image, no two overlapping much."""
    rng = np.random.default_rng(len(split))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(number):
        tall = index % 3 == 2
        size = {"height": width if tall else height, "width": height if tall else width}
        images.append({"id": 100 + index, "file_name": f"{split}_{index}.jpg", **size})
        for place in range(1 + index % 3):
            x, y = 2 + 14 * place + float(rng.integers(0, 3)), 3 + float(rng.integers(0, 12))
            w, h = float(rng.integers(8, 13)), float(rng.integers(8, 26))
            annotations.append(
                {
                    "id": 1 + len(annotations),
                    "image_id": 100 + index,
                    "category_id": CATEGORIES[(index + place) % 3]["id"],
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


def write_coco(root: Path, content: dict[str, Any], split: str) -> Path:
    """``annotations/instances_SPLIT.json`` and ``SPLIT/*.jpg`` in ``root``."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    (root / split).mkdir(exist_ok=True)
    for image in content["images"]:
        pixels = np.full((image["height"], image["width"], 3), 128, dtype=np.uint8)
        for each in content["annotations"]:
            if each["image_id"] == image["id"] and each["category_id"] in _COLOURS:
                x, y, w, h = (round(number) for number in each["bbox"])
                pixels[y : y + h, x : x + w] = _COLOURS[each["category_id"]]
        Image.fromarray(pixels).save(root / split / image["file_name"], quality=95)
    return root


def coco_folder(root: Path) -> Path:
    """A COCO folder with ``train2017`` and ``val2017``."""
    for split in ("train2017", "val2017"):
        write_coco(root, coco_content(split), split)
    return root


def voc_object(name: str, box: tuple[int, int, int, int], difficult: int = 0) -> str:
    """One ``<object>``; the box is xmin, ymin, xmax, ymax, counted from 1."""
    edges = "".join(f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{edges}</bndbox></object>"


def write_voc(root: Path, year: int, split: str, objects: dict[str, str]) -> Path:
    """One split: the objects of each image as XML; all images are grey and 64 × 48 px."""
    folder = root / f"VOC{year}"
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in objects))
    for name, content in objects.items():
        size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
        (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}{content}</annotation>")
        Image.new("L", (64, 48), 90).save(folder / "JPEGImages" / f"{name}.jpg")
    return root
