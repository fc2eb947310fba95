"""What a quick look at a set of images finds."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslight.data import FolderSource, StoreUnavailable, SyntheticSource, glance
from tests.data.pictures import encode, jpeg, smooth_pixels


def write(folder: Path, files: dict[str, bytes]) -> FolderSource:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return FolderSource(folder, labeled=False)


def test_sizes_are_medians_of_what_can_be_read(tmp_path: Path) -> None:
    sizes = {"a.jpg": jpeg(0, 48, 64), "b.jpg": jpeg(1, 80, 60), "c.png": encode(Image.new("RGB", (500, 400)), "PNG")}
    found = glance(write(tmp_path, {**sizes, "broken.jpg": b"no image"}))
    assert (found.num_images, found.short_side, found.megapixels) == (4, 60, 0.0048)
    assert not found.is_gray
    assert found.alike == 0


def test_gray_pictures_are_gray_also_as_colored_files(tmp_path: Path) -> None:
    gray = [Image.fromarray(smooth_pixels(48, 64, seed)).convert("L") for seed in range(3)]
    files = {f"{number}.jpg": encode(image.convert("RGB"), "JPEG") for number, image in enumerate(gray)}
    source = write(tmp_path, files | {"l.png": encode(gray[0], "PNG")})
    assert glance(source).is_gray
    assert not glance(write(tmp_path, {"color.jpg": jpeg()})).is_gray


def test_frames_of_a_video_are_alike(tmp_path: Path) -> None:
    scene = smooth_pixels(48, 80).astype(np.int64)
    frames = [np.clip(scene[:, number : 64 + number] + number, 0, 255).astype(np.uint8) for number in range(10)]
    source = write(tmp_path, {f"{n:03}.png": encode(Image.fromarray(frame), "PNG") for n, frame in enumerate(frames)})
    assert glance(source).alike >= 0.9


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of the sampled images can be read"):
        glance(write(tmp_path, {"a.jpg": b"no image"}))


def test_a_store_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source, asked = SyntheticSource(300), list[int]()

    def read(index: int) -> bytes:
        asked.append(index)
        raise StoreUnavailable("it is away")

    monkeypatch.setattr(source, "read", read)
    with pytest.raises(StoreUnavailable, match="it is away"):
        glance(source)
    assert len(asked) == 1
