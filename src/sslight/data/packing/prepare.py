"""Images made ready to be stored, in several processes, and the count of them."""

import errno
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from sslight.data.decoding.limits import UnreadableImage, one_line
from sslight.data.packing.parallel import map_in_order
from sslight.data.packing.reencode import Stored, reencode
from sslight.data.sources.bad_images import BadImage, bad_image
from sslight.data.sources.source import Source

CHUNK = 8  # Images that a worker prepares at a time: few, because an interruption waits for them

Prepared = tuple[int, Stored | BadImage]  # Index of an image in its source, and what is stored of it or why nothing is


@dataclass
class Tally:
    """Images stored, how many of them made smaller, their bytes, and those left out."""

    num_stored: int = 0
    num_reencoded: int = 0
    num_bytes: int = 0
    bad: list[BadImage] = field(default_factory=list)

    @property
    def num_images(self) -> int:
        return self.num_stored + len(self.bad)

    def count(self, image: Stored | BadImage) -> None:
        if isinstance(image, BadImage):
            self.bad.append(image)
            return
        self.num_stored += 1
        self.num_reencoded += image.reencoded
        self.num_bytes += len(image.encoded)

    def add(self, other: "Tally") -> None:
        self.num_stored += other.num_stored
        self.num_reencoded += other.num_reencoded
        self.num_bytes += other.num_bytes
        self.bad += other.bad

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> "Tally":
        return cls(**{**data, "bad": [BadImage(**image) for image in data["bad"]]})


def prepared_images(
    prepare: Callable[[Sequence[int]], list[Prepared]], indices: Sequence[int], *, workers: int
) -> Generator[Prepared, None, None]:
    """The images at ``indices`` in this order, made ready by ``workers`` processes."""
    chunks = (indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK))
    with closing(map_in_order(prepare, chunks, workers=workers)) as prepared:
        for images in prepared:
            yield from images


def prepare(source: Source, short_side: int | None, max_pixels: int, indices: Sequence[int]) -> list[Prepared]:
    """Read, check and make smaller the images at ``indices``.

    Raises OSError if not one of several can be read: then the set is gone, not its images bad.
    """
    prepared: list[Prepared] = []
    failures: list[OSError] = []
    for index in indices:
        try:
            prepared.append((index, reencode(source.name(index), source.read(index), short_side, max_pixels)))
        except (UnreadableImage, OSError) as error:
            failures += [error] if isinstance(error, OSError) else []
            prepared.append((index, bad_image(source, index, error)))
    if len(failures) == len(prepared) > 3:
        raise OSError(
            failures[0].errno or errno.EIO,
            f"none of {len(failures)} images in a row could be read ({one_line(failures[0])}); when the set is "
            "available again, run the same command",
            source.locate(prepared[0][0]),
        )
    return prepared
