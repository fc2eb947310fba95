"""What a part of a set became when it was packed."""

import errno
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from sslight.data.decoding.unreadable import UnreadableImage
from sslight.data.packing.reencode import Stored, prepare
from sslight.data.sources.bad_images import BadImage, bad_image
from sslight.data.sources.source import Source


@dataclass
class Tally:
    """Images stored, how many of them made smaller, their bytes, and those left out."""

    num_stored: int = 0
    num_reencoded: int = 0
    num_bytes: int = 0
    bad: list[BadImage] = field(default_factory=list)

    @property
    def num_images(self) -> int:
        """Images dealt with."""
        return self.num_stored + len(self.bad)

    def count(self, image: Stored | BadImage) -> None:
        """Add one image."""
        if isinstance(image, BadImage):
            self.bad.append(image)
            return
        self.num_stored += 1
        self.num_reencoded += image.reencoded
        self.num_bytes += len(image.encoded)

    def add(self, other: "Tally") -> None:
        """Add those of another part."""
        self.num_stored += other.num_stored
        self.num_reencoded += other.num_reencoded
        self.num_bytes += other.num_bytes
        self.bad += other.bad

    def as_plain(self) -> dict[str, Any]:
        """As plain data, for a file."""
        return asdict(self)

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> "Tally":
        """What :meth:`as_plain` gave."""
        return cls(**{**data, "bad": [BadImage(**image) for image in data["bad"]]})


def prepare_images(
    source: Source, indices: Iterable[int], short_side: int | None
) -> list[tuple[int, Stored | BadImage]]:
    """Read, check and make smaller: the images at ``indices``.

    Raises OSError if not one of several can be read: then the set is gone, not its images bad.
    """
    prepared: list[tuple[int, Stored | BadImage]] = []
    failures: list[OSError] = []
    for index in indices:
        try:
            prepared.append((index, prepare(source.name(index), source.read(index), short_side)))
        except UnreadableImage as error:
            prepared.append((index, bad_image(source, index, error)))
        except OSError as error:
            failures.append(error)
            prepared.append((index, bad_image(source, index, error)))
    if len(failures) == len(prepared) > 3:
        reason = failures[0].strerror or str(failures[0])
        raise OSError(
            failures[0].errno or errno.EIO,
            f"not one of {len(failures)} images one after the other ({reason}); if the set is there again, the same "
            "command goes on",
            source.locate(prepared[0][0]),
        )
    return prepared
