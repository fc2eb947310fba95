"""Which tar shards a path means: a file, a folder of shards, or a pattern such as ``shard-{000..009}.tar``."""

import itertools
import os
import re
from pathlib import Path

from sslight.data.sources.suffixes import IMAGE_SUFFIXES

MOST_SHARDS = 1_000_000

_RANGE = re.compile(r"\{([0-9]+)\.\.([0-9]+)\}")


def is_pattern(path: str) -> bool:
    """Whether the path has a range such as ``{000..009}``."""
    return _RANGE.search(path) is not None


def expand(pattern: str) -> list[str]:
    """All paths of the pattern, the last range counting fastest; numbers are as wide as the first one is written.

    Raises ValueError for a range that counts down or a pattern of more than a million paths.
    """
    literals = _RANGE.split(pattern)
    ranges: list[list[str]] = []
    total = 1
    for first, last in zip(literals[1::3], literals[2::3], strict=True):
        total *= int(last) - int(first) + 1
        if int(last) < int(first) or total > MOST_SHARDS:
            raise ValueError(
                f"{pattern} is not a pattern of 1 to {MOST_SHARDS:,} shards: {{{first}..{last}}} must count up; "
                "write, for example, shard-{000..009}.tar"
            )
        ranges.append([f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)])
    return [
        literals[0] + "".join(itertools.chain(*zip(numbers, literals[3::3], strict=True)))
        for numbers in itertools.product(*ranges)
    ]


def shards_in(folder: Path, suffix: str = ".tar") -> list[Path]:
    """The files of this suffix directly in a folder, by name, if nothing else in it is an image or a folder; else none.

    A folder of images beside which archives were left is a folder of images.
    """
    shards: list[Path] = []
    with os.scandir(folder) as listing:
        for entry in listing:
            name = entry.name.lower()
            if entry.name.startswith("."):
                continue
            if name.endswith(IMAGE_SUFFIXES) or entry.is_dir():
                return []
            if name.endswith(suffix):
                shards.append(folder / entry.name)
    return sorted(shards)
