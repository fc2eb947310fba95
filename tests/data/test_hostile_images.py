"""Images that are no images, too large, damaged or never come: each is accounted for, and nothing crashes or hangs."""

import io
import os
import signal
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslight.config import build_settings, load_recipe
from sslight.data import (
    BadImage,
    FolderSource,
    ReadLimits,
    SyntheticSource,
    UnreadableImage,
    ViewLoader,
    WorkerFailed,
    build_source,
    check_readable,
    decode,
    image_batches,
)
from sslight.views import MultiCrop
from tests.data.mutations import mutated
from tests.data.pictures import encode, jpeg, write_class_folders


class Memory:
    """Encoded images in memory, as a source."""

    classes = None
    labels = None

    def __init__(self, images: list[bytes]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> bytes:
        return self._images[index]

    def name(self, index: int) -> str:
        return f"{index}.jpg"

    def locate(self, index: int) -> str:
        return f"/memory/{index}.jpg"


def photographs() -> list[bytes]:
    """Small files of several formats and kinds, with the noise and edges of photographs."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(
        (72, 56), Image.Resampling.BICUBIC
    )
    noisy = np.clip(np.asarray(coarse).astype(int) + rng.normal(0, 12, (56, 72, 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(noisy)
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        encode(image, "JPEG", quality=90),
        encode(image, "JPEG", quality=60, progressive=True),
        encode(image, "JPEG", quality=85, exif=exif),
        encode(image.convert("L"), "JPEG"),
        encode(image.convert("CMYK"), "JPEG"),
        encode(image, "PNG"),
        encode(image.convert("P"), "PNG"),
        encode(image.convert("RGBA"), "PNG"),
        encode(Image.fromarray(noisy[:, :, 0].astype(np.uint16) * 257), "PNG"),
        encode(image, "WEBP", quality=80),
        encode(image, "WEBP", lossless=True),
        encode(image, "WEBP", save_all=True, append_images=[image.rotate(180)]),
        encode(image, "HEIF", quality=80, exif=exif),
        encode(image, "AVIF", quality=80),
        encode(image.convert("RGBA"), "AVIF", exif=exif),
        encode(image, "JPEG2000"),
        encode(image, "TIFF", compression="tiff_adobe_deflate", exif=exif),
    ]


def account(images: list[bytes], workers: int = 2) -> Counter[str]:
    """Decode in worker processes; what became of the images. Fails if one is lost or takes a minute."""
    bad: list[BadImage] = []
    source = Memory(images)
    decoded: list[int] = []
    for views, _, indices in image_batches(
        source, size=32, batch_size=50, workers=workers, bad=bad, limits=ReadLimits(timeout=60)
    ):
        assert views.shape[1:] == (3, 32, 32)
        decoded += indices.tolist()
    assert sorted(decoded + [image.index for image in bad]) == list(range(len(images)))
    assert all(image.reason and "\n" not in image.reason for image in bad)
    return Counter({"decoded": len(decoded), "listed": len(bad)})


def check_mutations(number: int, originals: list[bytes]) -> Counter[str]:
    outcome = account([mutated(originals[seed % len(originals)], seed) for seed in range(number)])
    assert min(outcome["decoded"], outcome["listed"]) > number / 20  # both kinds occur, or nothing was tested
    return outcome


def test_mutated_images_are_decoded_or_listed(capfd: pytest.CaptureFixture[str]) -> None:
    check_mutations(60, photographs())
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_thousand_mutated_images_are_decoded_or_listed() -> None:
    print(check_mutations(1000, photographs()))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(height: int, width: int, rows: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def ppm(height: int, width: int) -> bytes:
    return f"P5 {width} {height} 255\n".encode()


def tiff_with_tiles(side: int) -> bytes:
    """8 × 8 px, grey, in one tile that claims ``side`` px each way."""
    entries = [(256, 8), (257, 8), (258, 8), (259, 8), (262, 1), (277, 1), (322, side), (323, side), (324, 8), (325, 1)]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + struct.pack("<I", 0)


def progressive_with_scans(number: int) -> bytes:
    encoded = encode(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    start = encoded.rindex(b"\xff\xda")
    return encoded[:start] + encoded[start:-2] * number + encoded[-2:]


BOMBS = {
    "png": png(20_000, 20_000, b""),
    "ppm": ppm(10**6, 10**6),
    "png strip": png(1, 90_000_000, b""),
    "tiff tiles": tiff_with_tiles(30_000),
    "jpeg scans": progressive_with_scans(600),
    "gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b",\0\0\0\0\xff\xff\xff\xff\0\2\0;",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_by_its_header(kind: str) -> None:
    with pytest.raises(UnreadableImage, match=r"more than|side above|claims tiles of 30000 px"):
        decode(BOMBS[kind])


def test_the_limit_of_pixels_is_a_setting_that_the_loader_keeps(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "set", {"a": 8})
    (tmp_path / "set" / "a" / "large.jpg").write_bytes(jpeg(height=80, width=80))
    settings = load_recipe("dino_cnn_sslight_64", {"data.max_pixels": 64 * 48, "data.max_bad_share": 1.0})
    loader = ViewLoader(
        build_source([str(tmp_path / "set")], labeled=False),
        MultiCrop(2, 0, 16),
        batch_size=9,
        seed=0,
        limits=ReadLimits(settings.data.max_pixels),
    )
    list(loader.epoch(0))
    assert [(image.name, image.reason) for image in loader.bad_images] == [
        ("a/large.jpg", "claims 80 × 80 pixels, more than the limit of 3,072")
    ]
    with pytest.raises(ValueError, match=r"data.max_pixels=0: .*greater than or equal to 1"):
        build_settings({}, {"data.max_pixels": 0})


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1), (3, 65_000)])
def test_a_strip_is_evaluated_in_the_memory_of_an_ordinary_image(shape: tuple[int, int]) -> None:
    encoded = encode(Image.new("RGB", shape[::-1], (10, 200, 30)), "PNG")
    started = time.monotonic()
    (views, _, _), *_ = image_batches(Memory([encoded]), size=224, batch_size=1, workers=0)
    assert time.monotonic() - started < 20  # all of it takes gigabytes
    assert (views[0, 1] == 200).all()


def test_pipes_and_sparse_giants_are_not_waited_for(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "set", {"a": 3})
    os.mkfifo(folder / "a" / "pipe.jpg")
    source = FolderSource(folder, labeled=False)
    assert len(source) == 3  # a pipe is not listed ...
    (folder / "a" / "000.jpg").unlink()
    os.mkfifo(folder / "a" / "000.jpg")  # ... and one that came later is not read
    os.truncate(folder / "a" / "001.jpg", 2**40)
    for index, reason in ((0, "it is a pipe, socket or device"), (1, "it has 1,099,511,627,776 bytes, more than")):
        with pytest.raises(UnreadableImage, match=reason):
            source.read(index)


class Hangs(SyntheticSource):
    """Image 13 never comes, as from a disk that is gone."""

    def read(self, index: int) -> bytes:
        if index == 13:
            time.sleep(600)
        return super().read(index)


class Dies(SyntheticSource):
    """A decoder that crashes at image 13."""

    def read(self, index: int) -> bytes:
        if index == 13:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().read(index)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_read_that_never_ends_ends_in_a_sentence_that_names_the_image(workers: int) -> None:
    source = Hangs(40, size=16)
    loader = ViewLoader(
        source, MultiCrop(2, 0, 8), batch_size=8, seed=0, workers=workers, limits=ReadLimits(timeout=0.8)
    )
    started = time.monotonic()
    try:
        with pytest.raises(WorkerFailed) as caught:
            list(loader.epoch(0))
        assert str(caught.value).startswith(f"reading {source.locate(13)} has taken more than read_timeout=0.8 seconds")
    finally:
        loader.close()
    assert 0.8 < time.monotonic() - started < 20


def test_slow_reads_that_go_on_are_no_hang() -> None:
    class Slow(SyntheticSource):
        def read(self, index: int) -> bytes:
            time.sleep(0.25)
            return super().read(index)

    batches = image_batches(
        Slow(12, size=16), size=16, batch_size=12, workers=2, limits=ReadLimits(timeout=0.9)
    )  # a task of six images takes longer than the limit for one
    assert sum(len(images) for images, _, _ in batches) == 12


def test_a_decoder_that_crashes_ends_in_a_sentence_that_names_the_image() -> None:
    source = Dies(40, size=16)
    loader = ViewLoader(source, MultiCrop(2, 0, 8), batch_size=8, seed=0, workers=2)
    try:
        with pytest.raises(WorkerFailed, match=r"exit code -11") as caught:
            list(loader.epoch(0))
        assert source.locate(13) in str(caught.value)
    finally:
        loader.close()


def test_the_first_look_at_a_set_does_not_hang_either() -> None:
    class Gone(SyntheticSource):
        def read(self, index: int) -> bytes:
            time.sleep(60)
            return b""

    with pytest.raises(WorkerFailed, match=r"read_timeout=0.2 seconds"):
        check_readable(Gone(3), limits=ReadLimits(timeout=0.2))


def test_names_cannot_drive_the_terminal(tmp_path: Path, image_folder: Callable[..., Path]) -> None:
    folder = image_folder("names", each=2)
    (folder / "\x1b]0;owned\x07.jpg").write_bytes(b"")
    bad: list[BadImage] = []
    list(image_batches(FolderSource(folder, labeled=False), size=8, batch_size=3, workers=0, bad=bad))
    assert [(image.name, image.reason) for image in bad] == [(r"\x1b]0;owned\x07.jpg", "the file is empty (0 bytes)")]
    assert "\x1b" not in bad[0].location


def test_mutations_are_the_same_for_the_same_seed() -> None:
    original = jpeg()
    assert mutated(original, 3) == mutated(original, 3)
    assert len({mutated(original, seed) for seed in range(50)}) > 45
    assert Image.open(io.BytesIO(original)).size == (64, 48)
