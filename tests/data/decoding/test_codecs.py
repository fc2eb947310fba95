"""The program decodes with torchcodec, or with the decoders of an older torchvision; one of them is enough."""

import builtins
import importlib.util
import sys
from typing import Any

import pytest
import torch

from sslight.data.decoding import codecs
from tests.data.pictures import encode, jpeg, smooth_pixels


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Importing one of these fails, as where it is not installed."""
    original = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] in packages:
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_without_any_decoder_of_jpeg_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "torchcodec", "torchvision")
    with pytest.raises(ImportError, match=r"install torchcodec 0.16 or later, which needs torch 2.11"):
        codecs._decoders()


def test_without_torchcodec_torchvisions_decoders_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "torchcodec")
    if not hasattr(torch.ops.image, "decode_jpeg"):
        pytest.skip("this torchvision has no decoders any more")
    decode_jpeg, _ = codecs._decoders()
    assert decode_jpeg(torch.frombuffer(bytearray(jpeg()), dtype=torch.uint8)).shape == (3, 48, 64)


@pytest.mark.skipif(importlib.util.find_spec("torchcodec") is None, reason="needs torchcodec")
def test_with_torchcodec_pixels_are_those_of_torchvision_and_torchvision_is_not_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from PIL import Image

    files = [jpeg(), jpeg(height=17, width=33), encode(Image.fromarray(smooth_pixels()), "JPEG", progressive=True)]
    encoded = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
    theirs = None
    if hasattr(torch.ops.image, "decode_jpeg"):
        decoder, _ = codecs._torchvision_decoders()
        theirs = [decoder(file) for file in encoded]
    without(monkeypatch, "torchvision")
    assert "torchcodec" in sys.modules
    decode_jpeg, _ = codecs._decoders()
    for number, file in enumerate(encoded):
        pixels = decode_jpeg(file)
        assert theirs is None or torch.equal(pixels, theirs[number])
