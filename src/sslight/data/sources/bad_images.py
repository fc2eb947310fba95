"""Unreadable images: what is known of each, and how many are too many."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sslight.data.decoding.limits import UnreadableImage, one_line
from sslight.data.sources.names import printable
from sslight.data.sources.source import Source
from sslight.files import whole_file

_HANDFUL = 3  # So many unreadable images are never too many, unless none is accepted


@dataclass(frozen=True)
class BadImage:
    """An image that could not be used: where it lies, why not, how often met; all in printable text of one line."""

    index: int
    name: str
    location: str
    reason: str
    count: int = 1


def bad_image(source: Source, index: int, error: UnreadableImage | OSError) -> BadImage:
    """What is reported of an image that raised ``error``."""
    return BadImage(index, printable(source.name(index)), source.locate(index), one_line(error))


class BadImageLog:
    """The unreadable images that one process met, and the rule when to stop.

    ``num_images`` is the size of the set, ``max_share`` the largest accepted share of the images seen; 0 accepts
    none. Otherwise a handful is always accepted, and, until the whole set may have been seen, three standard
    deviations above the share, lest chance stop a run. ``setting`` is the name of ``max_share`` in messages.
    """

    def __init__(self, num_images: int, max_share: float, setting: str = "data.max_bad_share") -> None:
        self._num_images = num_images
        self._max_share = max_share
        self._setting = setting
        self._seen = 0
        self._found: dict[int, BadImage] = {}

    @property
    def images(self) -> list[BadImage]:
        """Every image met, once, by index."""
        return [self._found[index] for index in sorted(self._found)]

    def state_dict(self) -> dict[str, Any]:
        """All that this log knows, as plain data."""
        return {"seen": self._seen, "found": [asdict(image) for image in self.images]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self._seen = state["seen"]
        self._found = {found["index"]: BadImage(**found) for found in state["found"]}

    def add(self, num_seen: int, bad: Iterable[BadImage]) -> None:
        """Record a batch of ``num_seen`` images. Raises ValueError if there are too many bad ones."""
        self._seen += num_seen
        self.note(bad)
        seen = min(self._seen, self._num_images)
        accepted = self._max_share * seen
        if seen < self._num_images:
            accepted += 3 * accepted**0.5
        if _too_many(len(self._found), accepted, self._max_share):
            raise ValueError(
                f"{len(self._found)} of {seen} images seen are unreadable, more than "
                f"{self._setting}={self._max_share:g} allows: {describe(self.images)}; repair or remove them, "
                f"or raise {self._setting}"
            )

    def note(self, bad: Iterable[BadImage]) -> None:
        """Record images without judging their number."""
        for image in bad:
            known = self._found.get(image.index)
            self._found[image.index] = image if known is None else replace(known, count=known.count + image.count)


def merge_bad_images(states: Iterable[dict[str, Any]]) -> list[BadImage]:
    """The unreadable images in the states of several processes' loaders, once each, by index."""
    log = BadImageLog(num_images=0, max_share=1.0)
    for state in states:
        log.note(BadImage(**found) for found in state["found"])
    return log.images


def too_many_bad(number: int, total: int, max_share: float) -> bool:
    """Whether so many unreadable ones of all images of a set are not accepted: the rule of :class:`BadImageLog`."""
    return _too_many(number, max_share * total, max_share)


def _too_many(number: int, accepted: float, max_share: float) -> bool:
    return number > (max(_HANDFUL, accepted) if max_share else 0)


def check_bad_share(number: int, total: int, what: str, max_share: float, bad: Sequence[BadImage] = ()) -> None:
    """Raise ValueError, naming some of ``bad``, if too many of the ``total`` images of ``what`` are bad, or all."""
    named = f" ({describe(bad)})" if bad else ""
    if number == total:
        raise ValueError(f"none of the {total} images of {what} can be read{named}: repair or replace them.")
    if too_many_bad(number, total, max_share):
        raise ValueError(
            f"{number} of the {total} images of {what} are unreadable, more than data.max_bad_share={max_share:g} "
            f"allows{named}: repair or remove them, or raise data.max_bad_share."
        )


def write_bad_images(path: Path, images: Iterable[BadImage]) -> None:
    """Write a CSV file with index, name, reason and how often each was met."""
    with whole_file(path, "w") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "name", "reason", "count"])
        writer.writerows([image.index, image.name, image.reason, image.count] for image in images)


def count_reasons(path: Path) -> dict[str, int]:
    """How many images are in a file of :func:`write_bad_images` for each reason, the commonest first."""
    with path.open(encoding="utf-8", newline="") as file:
        return dict(Counter(row["reason"] for row in csv.DictReader(file)).most_common())


def describe(images: Sequence[BadImage]) -> str:
    """The first three, with reasons."""
    listed = "; ".join(f"{image.location} ({image.reason})" for image in images[:3])
    return listed if len(images) <= 3 else f"{listed}; and {len(images) - 3} more"


def no_readable_image(images: list[BadImage], *, setting: str = "data.train") -> str:
    """The sentence for a set in which none of the images tried could be read."""
    return (
        f"no readable image among the {len(images)} tried: {describe(images)}; "
        f"check that {setting} points to intact image files"
    )
