"""The program decodes with torchvision while it has decoders, then with torchcodec: the pixels are the same."""

import builtins
from typing import Any

import pytest
import torch
from PIL import Image

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


def test_where_torchvision_has_no_decoders_torchcodec_gives_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.fromarray(smooth_pixels())
    files = [jpeg(), jpeg(height=17, width=33), encode(picture, "JPEG", progressive=True), encode(picture, "WEBP")]
    before = codecs._decoders()
    without(monkeypatch, "torchvision")
    after = codecs._decoders()
    assert after[0] is not before[0]
    for number, file in enumerate(files):
        encoded = torch.frombuffer(bytearray(file), dtype=torch.uint8)
        kind = int(number == 3)
        assert torch.equal(before[kind](encoded), after[kind](encoded))
