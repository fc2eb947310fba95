"""The compiled decoders: torchcodec's for JPEG and WebP, Pillow's with libheif for all else, one thread each.

torchvision's decoders are deprecated (0.29) in favor of torchcodec's, which were made of them: pixels and messages
are the same (benchmarks/results/data.md). They still serve where torch is older than 2.11, for which there
is no torchcodec that decodes images.
"""

from collections.abc import Callable
from functools import partial

import pillow_heif
import torch
from PIL import AvifImagePlugin

PIL_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "HEIF", "AVIF", "JPEG2000")

Decoder = Callable[[torch.Tensor], torch.Tensor]
"""From a file's bytes (uint8 ``[N]``) to uint8 ``[3, H, W]`` RGB, a JPEG upright by EXIF. Raises RuntimeError."""

# Every worker process has a core of its own.
pillow_heif.register_heif_opener(decode_threads=1)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def _decoders() -> tuple[Decoder, Decoder]:
    """For JPEG and for WebP of one picture."""
    try:
        from torchcodec.decoders import ImageReadMode, decode_jpeg, decode_webp
    except (ImportError, OSError, RuntimeError):  # the last two: it was built for another torch
        return _torchvision_decoders()
    return partial(decode_jpeg, mode=ImageReadMode.RGB), partial(decode_webp, mode=ImageReadMode.RGB)


def _torchvision_decoders() -> tuple[Decoder, Decoder]:
    try:
        import torchvision.io

        # The operators are called by themselves because their wrappers warn of deprecation.
        jpeg, webp = torch.ops.image.decode_jpeg, torch.ops.image.decode_webp
        rgb = torchvision.io.ImageReadMode.RGB.value
    except (ImportError, AttributeError):
        raise ImportError(
            "no decoder of JPEG is installed: install torchcodec 0.16 or later, which needs torch 2.11 or later"
        ) from None
    return lambda encoded: jpeg(encoded, rgb, True), lambda encoded: webp(encoded, rgb)  # True: EXIF


decode_jpeg, decode_webp = _decoders()
