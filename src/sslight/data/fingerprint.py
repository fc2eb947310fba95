"""A set of images as a number that changes when it changes."""

import hashlib

import numpy as np

from sslight.data.source import Source

NUM_READ_IMAGES = 64
"""Images whose bytes are part of a set's fingerprint."""


def data_fingerprint(source: Source) -> str:
    """SHA-256 (hex) of the names, order, classes and labels of all images and the bytes of some.

    The bytes are those of up to 64 images spread evenly; reading all would cost as much as using them.
    An unreadable one counts as such.
    """
    digest = hashlib.sha256(f"{len(source)};".encode())
    for index in range(len(source)):
        digest.update(source.name(index).encode("utf-8", "surrogateescape") + b"\n")
    if source.classes is not None and source.labels is not None:
        digest.update("\n".join(source.classes).encode("utf-8", "surrogateescape"))
        digest.update(source.labels.tobytes())
    for index in np.unique(np.linspace(0, len(source) - 1, NUM_READ_IMAGES).astype(np.int64)).tolist():
        try:
            content = source.read(index)
        except (OSError, ValueError):
            content = b"unreadable"
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
