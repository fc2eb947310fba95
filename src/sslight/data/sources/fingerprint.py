"""What a set of images is, as numbers that change when it changes."""

import hashlib
from dataclasses import dataclass

import numpy as np

from sslight.data.sources.source import Source

NUM_READ_IMAGES = 64  # Images whose bytes are part of a set's fingerprint


@dataclass(frozen=True)
class DataFingerprint:
    """The number of images and three SHA-256 (hex), each of one kind of difference."""

    num_images: int
    names: str
    labels: str
    contents: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(f"{self.num_images};{self.names};{self.labels};{self.contents}".encode()).hexdigest()


def data_fingerprint(source: Source) -> DataFingerprint:
    """The fingerprint of all names in order, of all classes and labels, and of the bytes of some images.

    The bytes are those of up to 64 images spread evenly; reading all would cost as much as using them.
    An unreadable one counts as such.
    """
    names = hashlib.sha256()
    for index in range(len(source)):
        names.update(source.name(index).encode("utf-8", "surrogateescape") + b"\n")
    labels = hashlib.sha256()
    if source.classes is not None and source.labels is not None:
        labels.update("\n".join(source.classes).encode("utf-8", "surrogateescape"))
        labels.update(source.labels.tobytes())
    contents = hashlib.sha256()
    for index in np.unique(np.linspace(0, len(source) - 1, NUM_READ_IMAGES).astype(np.int64)).tolist():
        try:
            content = source.read(index)
        except (OSError, ValueError):
            content = b"unreadable"
        contents.update(hashlib.sha256(content).digest())
    return DataFingerprint(len(source), names.hexdigest(), labels.hexdigest(), contents.hexdigest())
