"""``sslight`` alone: what is here and what to do next. It does not import torch, and looks at only a part of a large
tree.
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Any

from sslight import __version__
from sslight.cli.terminal import say
from sslight.config import read_plain_settings
from sslight.reading import IMAGE_SUFFIXES

_ENTRIES, _FOLDERS, _DEPTH = 200, 100, 4  # limits: entries per folder, folders, levels below this one
_OF_A_CLONE = ("benchmarks", "build", "docs", "examples", "src", "tests")
_SOME, _CLASSES = 5, 4  # images that make a set, folders of images that make one set


def say_what_next() -> None:
    """Print what is here and the commands that fit, with real names."""
    images, runs = _look()
    photos = quote(images or "IMAGES")
    if runs:
        newest = max(runs, key=lambda run: (run / "config.yaml").stat().st_mtime)
        what, commands = _after(newest, quote(_images_of(newest) or images or "IMAGES"))
    elif images:
        here = "This folder" if images == "." else images
        what = f"{here} holds images. Pre-train a network on them in 8 hours, or look first:"
        commands = [
            f"pretrain auto data.train={photos} output={'../' * (images == '.')}runs/first hours=8",
            f"plan {photos} hours=8",
            f"views {photos}",
        ]
    else:
        what = "No images and no runs are here. IMAGES stands for a folder of your images:"
        commands = [f"pretrain auto data.train={photos} output=runs/first hours=8"]
    say(f"sslight {__version__}, self-supervised pre-training for small vision networks\n\n{what}")
    for command in commands:
        say(f"  sslight {command}")
    if not (runs or images):
        first = "make quickstart" if _is_clone() else "sslight pretrain quickstart output=runs/quickstart"
        say(f"\nTo try it without images of your own (two to five minutes on two cores):\n  {first}")
    say("\n`sslight --help` lists all commands, `sslight recipes` the published recipes.")


def _after(run: Path, images: str) -> tuple[str, list[str]]:
    """What a run is, and what can follow it."""
    name = quote(str(run))
    if (run / "classifier.safetensors").is_file():
        what = f"{run} is a classifier. Use it, or export it for a device:"
        return what, [f"predict {name} {images} output=predictions.csv", f"export {name} data.check={images}"]
    if (run / "backbone.safetensors").is_file():
        return f"{run} is pre-trained. Measure it, choose images to label, fine-tune it, or export it for a device:", [
            f"evaluate knn {name} data.train=LABELED/train data.val=LABELED/val",
            f"select {name} {images} num=300 output=to_label.csv",
            f"finetune {name} data.train=LABELED/train data.val=LABELED/val output=runs/classifier",
            f"export {name} data.check={images}",
        ]
    return f"{run} is running or was interrupted. Look at it, or continue it with the command that started it:", [
        f"report {name}",
        *([f"pretrain {name} resume=true"] if "method" in _settings_of(run) else []),  # of pre-training alone
    ]


def _is_clone() -> bool:
    return Path("Makefile").is_file() and Path("src/sslight").is_dir()


def _images_of(run: Path) -> str | None:
    """The one folder or file of images that the run was trained on, if it is still there."""
    train = _settings_of(run).get("data.train")
    if isinstance(train, list) and len(train) == 1 and os.path.exists(str(train[0])):  # noqa: PTH110 - never raises
        return str(train[0])
    return None


def _settings_of(run: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        return read_plain_settings(run / "config.yaml")
    return {}


def _look() -> tuple[str | None, list[Path]]:
    """The nearest folder or file of images, and the run folders."""
    runs: list[Path] = []
    counts: Counter[str] = Counter()
    waiting, direct = [Path()], 0
    own = _OF_A_CLONE if _is_clone() else ()
    for _ in range(_FOLDERS):
        if not waiting:
            break
        folder = waiting.pop(0)
        entries = list(_entries(folder))
        names = {entry.name for entry in entries}
        if "config.yaml" in names and names & {"checkpoints", "metrics.jsonl"}:
            runs.append(folder)
            continue
        top = folder.parts[0] if folder.parts else "."
        number = sum(name.lower().endswith(IMAGE_SUFFIXES) for name in names)
        counts[top] += number
        direct += number >= _SOME and len(folder.parts) == 1
        counts |= {str(folder / name): _SOME for name in names if name.lower().endswith((".h5", ".hdf5"))}
        if len(folder.parts) < _DEPTH:
            waiting += [
                folder / entry.name
                for entry in entries
                if entry.is_dir() and entry.name[0] not in "._" and str(folder / entry.name) not in own
            ]
    found = [name for name, count in counts.items() if count >= _SOME]
    if direct >= _CLASSES or "." in found:
        return ".", runs
    return (found[0] if found else None), runs


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(folder) as entries:
        yield from islice(entries, _ENTRIES)
