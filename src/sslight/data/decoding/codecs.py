"""The compiled decoders: torchvision's or torchcodec's for JPEG and WebP, Pillow's with libheif for all else.

torchvision's are deprecated (0.29) in favor of torchcodec's, which were made of them: pixels and messages are the
same. They are used while torchvision has them, because a call costs 0.04 ms less (benchmarks/results/data.md),
and torchcodec's (0.16, torch 2.11) from then on. Each decodes in one thread: every worker has a core of its own.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pillow_heif
import torch
from PIL import AvifImagePlugin

PIL_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "HEIF", "AVIF", "JPEG2000")

Decoder = Callable[[torch.Tensor], torch.Tensor]
"""From a file's bytes (uint8 ``[N]``) to uint8 ``[3, H, W]`` RGB, a JPEG upright by EXIF. Raises RuntimeError."""

pillow_heif.register_heif_opener(decode_threads=1)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def torchvision_decoders() -> tuple[Decoder, Decoder]:
    """For JPEG and for WebP of one picture. Raises ImportError or AttributeError where torchvision has none."""
    import torchvision.io

    # The operators are called by themselves because their wrappers warn of deprecation.
    jpeg, webp = torch.ops.image.decode_jpeg, torch.ops.image.decode_webp
    rgb = torchvision.io.ImageReadMode.RGB.value
    return lambda encoded: jpeg(encoded, rgb, True), lambda encoded: webp(encoded, rgb)  # True: EXIF


def torchcodec_decoders() -> tuple[Decoder, Decoder]:
    """For JPEG and for WebP of one picture. Raises ImportError, or others where it was built for another torch."""
    from torchcodec.decoders import ImageReadMode, decode_jpeg, decode_webp

    return partial(decode_jpeg, mode=ImageReadMode.RGB), partial(decode_webp, mode=ImageReadMode.RGB)


def _decoders() -> tuple[Decoder, Decoder]:
    for load in (torchvision_decoders, torchcodec_decoders):
        with suppress(ImportError, AttributeError, OSError, RuntimeError):
            return load()
    raise ImportError(
        "no decoder of JPEG is installed: install torchcodec 0.16 or later, which needs torch 2.11 or later"
    )


decode_jpeg, decode_webp = _decoders()
