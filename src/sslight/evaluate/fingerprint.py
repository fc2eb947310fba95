"""What was evaluated, as numbers that change when it changes."""

import hashlib

import numpy as np
import torch
from torch import nn

from sslight.data import Source

NUM_READ_IMAGES = 64
"""Images whose bytes are part of a set's fingerprint."""


def weights_fingerprint(module: nn.Module) -> str:
    """SHA-256 (hex) of the names, types, shapes and bytes of all parameters and buffers.

    The host waits for the device.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {list(array.shape)};".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


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
