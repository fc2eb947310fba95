import io
from pathlib import Path

import numpy as np
from PIL import Image

from sslight.data import BadImage, FolderSource, ReadLimits, SyntheticSource, inspect_source, readable_images
from tests.data.pictures import encode, jpeg, smooth_pixels, write_class_folders


def test_a_set_is_summed_up(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"a": 3, "b": 1})  # 64 × 48 px
    (root / "b" / "grey.png").write_bytes(encode(Image.fromarray(smooth_pixels(20, 30)).convert("L"), "PNG"))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(smooth_pixels(40, 80))
    (root / "b" / "turned.jpg").write_bytes(encode(turned.convert("CMYK"), "JPEG", exif=exif))
    (root / "b" / "broken.jpg").write_bytes(jpeg()[:-300])
    (root / "b" / "empty.jpg").write_bytes(b"")
    for workers in (0, 2):
        found = inspect_source(FolderSource(root, labeled=True), workers=workers)
        assert (found.num_images, found.num_inspected, found.num_classes, found.num_rotated) == (8, 8, 2, 1)
        assert found.classes == {"a": 3, "b": 5}
        assert found.images_a_class is not None
        assert (found.images_a_class["smallest"], found.images_a_class["largest"]) == (3, 5)
        assert found.formats == {"JPEG": 5, "PNG": 1}
        assert found.modes == {"RGB": 4, "L": 1, "CMYK": 1}
        sides = found.distributions["short side"]
        assert (sides["smallest"], sides["median"], sides["largest"]) == (20, 48, 48)
        assert found.distributions["height"]["largest"] == 80  # upright
        readable = [path for path in root.rglob("*.*") if path.stem not in ("broken", "empty")]
        assert found.num_bytes == sum(path.stat().st_size for path in readable)
        assert [image.name for image in found.unreadable] == ["b/broken.jpg", "b/empty.jpg"]
        assert found.unreadable[1].reason == "the file is empty (0 bytes)"


def test_a_sample_is_spread_evenly_over_an_unlabelled_set() -> None:
    found = inspect_source(SyntheticSource(100, labeled=False), sample=10)
    assert (found.num_images, found.num_inspected, found.num_classes) == (100, 10, None)
    assert found.formats == {"JPEG": 10}
    assert inspect_source(SyntheticSource(5), sample=10).num_inspected == 5


def test_a_set_without_a_readable_image_is_summed_up_too(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"x")
    found = inspect_source(FolderSource(tmp_path, labeled=False))
    assert (found.distributions, found.num_bytes, len(found.unreadable)) == ({}, 0, 1)


def test_the_header_and_the_decoder_agree_on_every_mode(tmp_path: Path) -> None:
    for number, mode in enumerate(("L", "P", "RGBA", "1")):
        image = Image.fromarray(smooth_pixels()).convert(mode)
        (tmp_path / f"{number}.png").write_bytes(encode(image, "PNG"))
    Image.fromarray(np.full((8, 8), 500, np.uint16)).save(tmp_path / "9.png")
    file = io.BytesIO()
    Image.fromarray(smooth_pixels()).save(file, "WEBP")
    (tmp_path / "w.webp").write_bytes(file.getvalue())
    found = inspect_source(FolderSource(tmp_path, labeled=False))
    assert found.modes == {"L": 1, "P": 1, "RGBA": 1, "1": 1, "I;16": 1, "RGB": 1}


def test_the_limit_of_pixels_holds_and_what_is_no_image_is_counted(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"a": 2})
    (root / "a" / "large.png").write_bytes(encode(Image.fromarray(smooth_pixels(80, 80)), "PNG"))
    (root / "a" / "clip.mov").write_bytes(b"x")
    source = FolderSource(root, labeled=False)
    found = inspect_source(source, limits=ReadLimits(64 * 48))
    assert [image.reason for image in found.unreadable] == ["claims 80 × 80 pixels, more than the limit of 3,072"]
    assert found.passed_over == {".mov": 1}
    bad: list[BadImage] = []
    assert len(list(readable_images(source, seed=0, bad=bad, limits=ReadLimits(64 * 48)))) == 2
    assert [image.name for image in bad] == ["a/large.png"]
