import io
import math
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from sslight.data import UnreadableImage, decode
from tests.data.pictures import encode, jpeg, smooth_pixels

PICTURE = Image.fromarray(smooth_pixels())


def with_pil(encoded: bytes) -> npt.NDArray[np.uint8]:
    with warnings.catch_warnings(), Image.open(io.BytesIO(encoded)) as image:
        warnings.simplefilter("ignore")  # of palettes with transparency
        rgba = np.asarray(ImageOps.exif_transpose(image).convert("RGBA")).astype(float)
        share = rgba[:, :, 3:] / 255
        return np.round(rgba[:, :, :3] * share + 255 * (1 - share)).astype(np.uint8)  # over white


def hwc(image: torch.Tensor) -> npt.NDArray[np.uint8]:
    array: npt.NDArray[np.uint8] = image.permute(1, 2, 0).numpy()
    return array


def translucent(mode: str) -> Image.Image:
    image = PICTURE.convert("RGBA")
    image.putalpha(90)
    return image.convert(mode)


def palette_with_transparency() -> bytes:
    return encode(PICTURE.convert("P"), "PNG", transparency=bytes(range(0, 256)))


def ycck_jpeg() -> bytes:
    """A CMYK file whose Adobe segment says that its values are YCCK."""
    encoded = bytearray(encode(PICTURE.convert("CMYK"), "JPEG", quality=95))
    position = encoded.index(b"Adobe")
    assert encoded[position + 11] == 0
    encoded[position + 11] = 2
    return bytes(encoded)


ORDINARY = {
    "jpeg": jpeg(),
    "jpeg_of_odd_size": jpeg(height=17, width=33),
    "progressive_jpeg": encode(PICTURE, "JPEG", progressive=True),
    "grey_jpeg": encode(PICTURE.convert("L"), "JPEG"),
    "cmyk_jpeg": encode(PICTURE.convert("CMYK"), "JPEG"),
    "ycck_jpeg": ycck_jpeg(),
    "png": encode(PICTURE, "PNG"),
    "grey_png": encode(PICTURE.convert("L"), "PNG"),
    "grey_png_with_alpha": encode(translucent("LA"), "PNG"),
    "rgba_png": encode(translucent("RGBA"), "PNG"),
    "palette_png": encode(PICTURE.convert("P"), "PNG"),
    "palette_png_with_transparency": palette_with_transparency(),
    "one_bit_png": encode(PICTURE.convert("1"), "PNG"),
    "webp": encode(PICTURE, "WEBP", quality=90),
    "lossless_webp_with_alpha": encode(translucent("RGBA"), "WEBP", lossless=True, exact=True),
    "gif": encode(PICTURE, "GIF"),
    "animated_gif": encode(PICTURE, "GIF", save_all=True, append_images=[PICTURE.rotate(180)]),
    "animated_webp": encode(PICTURE, "WEBP", save_all=True, append_images=[PICTURE.rotate(180)], lossless=True),
    "bmp": encode(PICTURE, "BMP"),
    "tiff": encode(PICTURE, "TIFF"),
    "compressed_tiff": encode(PICTURE, "TIFF", compression="tiff_lzw"),
    "cmyk_tiff": encode(PICTURE.convert("CMYK"), "TIFF"),
    "one_bit_tiff": encode(PICTURE.convert("1"), "TIFF", compression="group4"),
    "ppm": encode(PICTURE, "PPM"),
    "pgm": encode(PICTURE.convert("L"), "PPM"),
    "pbm": encode(PICTURE.convert("1"), "PPM"),
    "one_pixel": encode(PICTURE.resize((1, 1)), "PNG"),
    "heic": encode(PICTURE, "HEIF", quality=90),
    "avif": encode(PICTURE, "AVIF", quality=90),
    "avif_with_alpha": encode(translucent("RGBA"), "AVIF", quality=90),
    "jpeg_2000": encode(PICTURE, "JPEG2000"),
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_pixels_are_those_of_pil_as_rgb(kind: str) -> None:
    encoded = ORDINARY[kind]
    expected = with_pil(encoded)
    image = decode(encoded)
    assert image.dtype == torch.uint8
    assert image.shape == (3, *expected.shape[:2])
    # Lossy formats may differ by a level where another build of the codec rounds differently.
    tolerance = 2 if kind.endswith("jpeg") or kind == "webp" else "alpha" in kind or "transparency" in kind
    assert np.abs(hwc(image).astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("kind", ORDINARY)
def test_the_memory_is_channels_last_and_writable(kind: str) -> None:
    image = decode(ORDINARY[kind])
    assert image.permute(1, 2, 0).is_contiguous()
    image.add_(1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_exif_orientation_is_applied(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if image_format == "WEBP" else {}
    # pillow-heif turns only pictures whose EXIF field comes as bytes.
    encoded = encode(PICTURE, image_format, exif=exif.tobytes() if image_format == "HEIF" else exif, **options)
    image = decode(encoded)
    assert image.permute(1, 2, 0).is_contiguous()
    expected = with_pil(encoded)
    assert expected.shape[:2] == ((48, 64) if orientation < 5 else (64, 48))
    assert hwc(image).shape == expected.shape
    assert np.abs(hwc(image).astype(int) - expected).max() <= (2 if image_format == "JPEG" else 0)


GARBAGE = b"Exif\0\0" + bytes(range(64))
"""No TIFF directory at all."""


def exif_with(tag: int, kind: int, value: bytes) -> bytes:
    """An EXIF field whose one entry is what the arguments say."""
    return b"Exif\0\0MM\0*" + struct.pack(">IHHHI", 8, 1, tag, kind, 1) + value.ljust(8, b"\0")


@pytest.mark.parametrize(
    "exif",
    [
        GARBAGE,
        GARBAGE[:7],
        exif_with(0x0112, 3, b"\0\x63"),  # an orientation of 99
        exif_with(0x0112, 2, b"up\0"),  # a word
        exif_with(0x0112, 5, b"\0\0\xff\xff"),  # a rational beyond the end
        exif_with(0x011A, 10, struct.pack(">I", 26)) + struct.pack(">ii", -1, 0),  # a resolution of -1/0
    ],
)
@pytest.mark.parametrize("kind", ["jpeg", "cmyk_jpeg", "png", "webp", "tiff", "heic"])
def test_an_orientation_that_cannot_be_read_is_none(kind: str, exif: bytes) -> None:
    picture = PICTURE.convert("CMYK") if kind == "cmyk_jpeg" else PICTURE
    image_format = {"cmyk_jpeg": "JPEG", "heic": "HEIF"}.get(kind, kind.upper())
    plain = encode(picture, image_format)
    if kind == "tiff":  # an entry of the file itself
        damaged = bytearray(encode(picture, "TIFF", tiffinfo={0x0112: 1}))
        entry = damaged.index(struct.pack("<HH", 0x0112, 3))
        damaged[entry + 8] = 99
        encoded = bytes(damaged)
    else:
        encoded = encode(picture, image_format, exif=exif)
    np.testing.assert_array_equal(hwc(decode(encoded)), hwc(decode(plain)))


def test_an_avif_whose_exif_is_no_directory_is_read() -> None:
    encoded = encode(PICTURE, "AVIF", quality=90, exif=exif_with(0x0112, 3, b"\0\1"))
    np.testing.assert_array_equal(
        hwc(decode(encoded.replace(b"MM\0*", b"none"))), hwc(decode(encode(PICTURE, "AVIF", quality=90)))
    )


def test_color_that_hides_behind_transparency_is_seen_on_white() -> None:
    drawing = np.zeros((8, 8, 4), dtype=np.uint8)  # black and transparent everywhere ...
    drawing[2:4, 2:4] = (10, 20, 30, 255)
    for image_format in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if image_format == "WEBP" else {}
        image = hwc(decode(encode(Image.fromarray(drawing), image_format, **options)))
        assert (image[0, 0] == 255).all()  # ... is white
        assert image[2, 2].tolist() == [10, 20, 30]
    keyed = Image.new("RGB", (8, 8), (0, 0, 0))
    assert (hwc(decode(encode(keyed, "PNG", transparency=(0, 0, 0)))) == 255).all()


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(image_format: str) -> None:
    values = np.linspace(0, 65535, 48 * 64).round().astype(np.uint16).reshape(48, 64)
    image = hwc(decode(encode(Image.fromarray(values), image_format)))
    expected = np.round(values / 257)
    for channel in range(3):
        np.testing.assert_array_equal(image[:, :, channel], expected)


def test_big_endian_sixteen_bit_tiff_is_scaled_too() -> None:
    values = np.linspace(0, 65535, 48 * 64).round().astype(">u2").reshape(48, 64)
    image = Image.frombytes("I;16B", (64, 48), values.tobytes())
    np.testing.assert_array_equal(hwc(decode(encode(image, "TIFF")))[:, :, 0], np.round(values / 257))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_sixteen_bit_colour_png_is_scaled_within_one_level() -> None:
    values = np.linspace(0, 65535, 16 * 8 * 3).round().astype(">u2").reshape(8, 16, 3)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 8, 16, 2, 0, 0, 0))
    encoded = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert np.abs(hwc(decode(encoded)).astype(float) - values / 257).max() <= 1


def test_floating_point_and_wide_integers_are_refused_with_a_remedy() -> None:
    for image in (Image.new("F", (8, 8), 0.5), Image.new("I", (8, 8), 100_000)):
        with pytest.raises(UnreadableImage, match="no known range; store it with 8 or 16 bits"):
            decode(encode(image, "TIFF"))


def tiff_of(bands: int, bits: int, sample_format: int, photometric: int) -> bytes:
    """A TIFF of 4 × 4 zeros in one strip."""
    values = {256: 4, 257: 4, 258: bits, 259: 1, 262: photometric, 273: 150, 277: bands, 278: 4, 339: sample_format}
    values[279] = 4 * 4 * bands * bits // 8
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, values[tag]) for tag in sorted(values))
    return (b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + bytes(4)).ljust(150, b"\0") + bytes(values[279])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ((5, 8, 1, 1), "5 bands of 8-bit whole numbers marked as BlackIsZero"),
        ((3, 16, 1, 1), "3 bands of 16-bit whole numbers marked as BlackIsZero"),
        ((3, 32, 3, 2), "3 bands of 32-bit floating-point numbers marked as RGB"),
        ((2, 64, 6, 77), "2 bands of 64-bit unknown values marked as an unknown interpretation"),
    ],
)
def test_a_tiff_of_a_kind_that_is_not_read_is_described(content: tuple[int, int, int, int], words: str) -> None:
    with pytest.raises(
        UnreadableImage, match=f"^TIFF: holds {words}, which is not supported; store it as RGB of 8 bits"
    ):
        decode(tiff_of(*content))


def test_scans_are_counted_in_the_picture_and_not_in_the_video_behind_it() -> None:
    video = b"\xff\xda\0\x08" * 2000
    for kind in ("jpeg", "progressive_jpeg", "cmyk_jpeg"):
        np.testing.assert_array_equal(hwc(decode(ORDINARY[kind] + video)), hwc(decode(ORDINARY[kind])))


@pytest.mark.parametrize(
    "kind",
    ["jpeg", "progressive_jpeg", "grey_jpeg", "cmyk_jpeg", "png", "webp", "tiff", "bmp", "heic", "avif", "jpeg_2000"],
)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_file_that_ends_early_is_unreadable_and_nothing_is_printed(
    kind: str, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    encoded = ORDINARY[kind]
    with pytest.raises(UnreadableImage) as caught:
        decode(encoded[: int(share * len(encoded))])
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_jpeg_padded_with_zeros_or_closed_early_is_unreadable(capfd: pytest.CaptureFixture[str]) -> None:
    encoded = jpeg()
    half = len(encoded) * 2 // 3
    for broken in (encoded[:half] + bytes(len(encoded) - half), encoded[:half] + b"\xff\xd9", encoded[:-2]):
        with pytest.raises(UnreadableImage, match="JPEG"):
            decode(broken)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "empty"),
        (b"not a picture\n" * 100, "not an image in a known format"),
        (b"\xff\xd8\xff", "not an image|truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image in a known format"),
    ],
)
def test_bytes_that_are_no_picture_are_unreadable(encoded: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason):
        decode(encoded)


def jpeg_claiming(height: int, width: int) -> bytes:
    encoded = bytearray(jpeg())
    position = encoded.index(b"\xff\xc0")
    encoded[position + 5 : position + 9] = struct.pack(">HH", height, width)
    return bytes(encoded)


def png_claiming(height: int, width: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def webp_claiming(height: int, width: int) -> bytes:
    encoded = bytearray(encode(PICTURE, "WEBP", lossless=True))
    position = encoded.index(b"VP8L") + 9
    encoded[position : position + 4] = ((height - 1) << 14 | width - 1).to_bytes(4, "little")
    return bytes(encoded)


@pytest.mark.parametrize("bomb", [jpeg_claiming(60000, 60000), png_claiming(60000, 60000), webp_claiming(16000, 16000)])
def test_a_picture_that_claims_too_many_pixels_is_refused_before_decoding(bomb: bytes) -> None:
    with pytest.raises(UnreadableImage, match=r"more than the limit of|exceeds limit"):
        decode(bomb)


@pytest.mark.parametrize(
    "kind", ["jpeg", "cmyk_jpeg", "png", "webp", "gif", "tiff", "bmp", "heic", "avif", "jpeg_2000"]
)
def test_the_pixel_limit_holds_for_every_format(kind: str) -> None:
    decode(ORDINARY[kind], max_pixels=48 * 64)
    with pytest.raises(UnreadableImage, match="claims 64 × 48 pixels, more than the limit of 3,071"):
        decode(ORDINARY[kind], max_pixels=48 * 64 - 1)


@pytest.mark.parametrize(
    "kind",
    ["jpeg", "png", "webp", "gif", "tiff", "compressed_tiff", "one_bit_tiff", "bmp", "heic", "avif", "jpeg_2000"],
)
def test_damaged_files_decode_or_are_unreadable_and_nothing_else_happens(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    original = ORDINARY[kind]
    rng = np.random.default_rng(len(original))
    reasons = []
    for _ in range(150):
        damaged = bytearray(original)
        for position in rng.integers(0, len(damaged), 3):
            damaged[position] = rng.integers(256)
        try:
            image = decode(bytes(damaged), max_pixels=10**6)
        except UnreadableImage as error:
            reasons.append(str(error))
        else:
            assert image.dtype == torch.uint8
            assert image.shape[0] == 3
    assert reasons
    assert not any("\n" in reason for reason in reasons)
    assert capfd.readouterr() == ("", "")


def photograph(mode: str = "RGB", **options: Any) -> bytes:
    coarse = np.random.default_rng(0).integers(0, 256, size=(6, 8, 3), dtype=np.uint8)
    return encode(Image.fromarray(coarse).resize((801, 602), Image.Resampling.BICUBIC).convert(mode), "JPEG", **options)


@pytest.mark.parametrize(
    ("factor", "divisor"), [(1.99, 1), (2.0, 2), (3.9, 2), (4.0, 4), (5.2, 4), (8.0, 8), (100.0, 8)]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_is_decoded_smaller_as_far_as_it_may(factor: float, divisor: int, mode: str) -> None:
    encoded = photograph(mode)
    whole, scaled = decode(encoded), decode(encoded, shrink=lambda height, width: factor)
    assert scaled.shape == (3, math.ceil(602 / divisor), math.ceil(801 / divisor))
    if divisor == 1:
        assert torch.equal(scaled, whole)
    else:
        means = F.avg_pool2d(whole.float(), divisor)
        rows, columns = means.shape[1:]
        assert (scaled[:, :rows, :columns].float() - means).abs().mean() < 1.0


def test_a_jpeg_that_is_decoded_smaller_is_upright_and_its_limits_hold() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    sizes = []

    def shrink(height: int, width: int) -> float:
        sizes.append((height, width))
        return 4.0

    assert decode(photograph(exif=exif), shrink=shrink).shape == (3, 201, 151)
    assert sizes == [(602, 801)]  # as stored
    with pytest.raises(UnreadableImage, match="claims 801 × 602 pixels, more than the limit of 1,000"):
        decode(photograph(), max_pixels=1000, shrink=shrink)
    with pytest.raises(UnreadableImage, match="truncated"):
        decode(photograph()[:-2000], shrink=shrink)
    assert decode(encode(PICTURE, "PNG"), shrink=shrink).shape == decode(encode(PICTURE, "PNG")).shape


def test_scaling_leaves_small_jpegs_of_any_color_as_they_are() -> None:
    encoded = encode(PICTURE.convert("CMYK"), "JPEG")
    assert torch.equal(decode(encoded, shrink=lambda height, width: 0.6), decode(encoded))


def test_an_animated_webp_of_one_picture_is_read() -> None:
    frame = encode(PICTURE, "WEBP", lossless=True)[12:]
    width, height = (PICTURE.width - 1).to_bytes(3, "little"), (PICTURE.height - 1).to_bytes(3, "little")
    content = (16 + len(frame)).to_bytes(4, "little") + bytes(6) + width + height + bytes([100, 0, 0, 0]) + frame
    chunks = b"VP8X" + (10).to_bytes(4, "little") + bytes([2, 0, 0, 0]) + width + height
    chunks += b"ANIM" + (6).to_bytes(4, "little") + bytes(6) + b"ANMF" + content
    encoded = b"RIFF" + (4 + len(chunks)).to_bytes(4, "little") + b"WEBP" + chunks
    assert torch.equal(decode(encoded), decode(encode(PICTURE, "PNG")))
