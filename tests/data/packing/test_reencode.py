import io

import numpy as np
import pytest
import torch
from PIL import Image

from sslight.data import UnreadableImage, decode
from sslight.data.packing.reencode import reencode
from tests.data.pictures import encode, jpeg, smooth_pixels


def picture(height: int = 90, width: int = 120) -> Image.Image:
    return Image.fromarray(smooth_pixels(height, width))


def test_without_a_size_and_up_to_it_every_byte_is_kept() -> None:
    rotated = Image.Exif()
    rotated[0x0112] = 6
    for image_format, options in (("JPEG", {"exif": rotated}), ("PNG", {}), ("WEBP", {}), ("GIF", {})):
        encoded = encode(picture(), image_format, **options)
        for short_side in (None, 90, 91):
            stored = reencode("a/x.img.png", encoded, short_side)
            assert (stored.encoded, stored.reencoded, stored.name) == (encoded, False, "a/x.img.png")


def test_a_larger_image_becomes_a_jpeg_of_that_shorter_side_close_to_the_resized_pixels() -> None:
    for size in ((90, 120), (120, 90)):
        stored = reencode("x.JPEG", encode(picture(*size), "PNG"), 45)
        assert stored.reencoded
        found = decode(stored.encoded)
        height, width = (45, 60) if size[0] < size[1] else (60, 45)
        assert found.shape == (3, height, width)
        expected = np.asarray(picture(*size).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(found.permute(1, 2, 0).numpy() - expected).mean() < 1.5
        with Image.open(io.BytesIO(stored.encoded)) as image:
            assert image.format == "JPEG"
            assert image.layer == [(1, 1, 1, 0), (2, 1, 1, 1), (3, 1, 1, 1)]  # type: ignore[attr-defined]  # 4:4:4


def test_a_turned_image_is_stored_upright_when_it_is_made_smaller() -> None:
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        encoded = encode(picture(), "JPEG", quality=95, exif=exif)
        stored = reencode("x.jpg", encoded, 45)
        with Image.open(io.BytesIO(stored.encoded)) as image:
            assert not image.getexif()
        upright = decode(encoded)
        half = torch.nn.functional.interpolate(upright[None].float(), scale_factor=0.5, mode="area")[0]
        assert (decode(stored.encoded).float() - half).abs().mean() < 4


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "LA", "I;16"])
def test_every_mode_is_made_smaller_as_it_is_decoded(mode: str) -> None:
    image = Image.fromarray(np.full((80, 80), 40000, np.uint16)) if mode == "I;16" else picture(80, 80).convert(mode)
    encoded = encode(image, "TIFF")
    small, large = decode(reencode("x.tif", encoded, 40).encoded), decode(encoded)
    assert abs(float(small.float().mean()) - float(large.float().mean())) < 2


def test_a_very_long_image_keeps_its_shorter_side() -> None:
    stored = reencode("x.png", encode(picture(9, 1000), "PNG"), 8)
    assert decode(stored.encoded).shape == (3, 8, 889)


def test_a_name_says_what_is_stored() -> None:
    large = encode(picture(), "PNG")
    assert reencode("a/x.png", large, 45).name == "a/x.png.jpg"
    assert reencode("a/x.JPG", large, 45).name == "a/x.JPG"
    assert reencode("a/0", large, None).name == "a/0.png"
    assert reencode("a/0", jpeg(), None).name == "a/0.jpg"
    assert reencode("a/0", encode(picture(), "WEBP"), None).name == "a/0.webp"
    assert reencode("a/0", encode(picture(), "HEIF"), None).name == "a/0.heic"
    assert reencode("a/x.HEIC", encode(picture(), "HEIF"), None).name == "a/x.HEIC"
    assert reencode("a/0", encode(picture(), "JPEG2000"), None).name == "a/0.jp2"


def test_an_unreadable_image_is_told() -> None:
    with pytest.raises(UnreadableImage):
        reencode("x.jpg", jpeg()[:-300], None)


def test_an_image_above_the_limit_is_told() -> None:
    with pytest.raises(UnreadableImage, match="claims 120 × 90 pixels, more than the limit of 100"):
        reencode("x.png", encode(picture(), "PNG"), 45, max_pixels=100)
