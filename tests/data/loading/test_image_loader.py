from pathlib import Path

import numpy as np
import pytest
import torch

from sslight.data import (
    BadImage,
    FolderSource,
    SyntheticSource,
    check_readable,
    decode,
    image_batches,
    readable_images,
    unreadable_images,
)
from sslight.views import center_view
from tests.data.pictures import write_class_folders


@pytest.mark.parametrize("workers", [0, 2])
def test_images_come_in_order_as_centre_views_with_a_smaller_last_batch(workers: int) -> None:
    source = SyntheticSource(11)
    images, labels, indices = [], [], []
    for batch, label, index in image_batches(source, size=16, batch_size=4, workers=workers):
        assert batch.shape == (len(index), 3, 16, 16)
        assert batch.permute(0, 2, 3, 1).is_contiguous()
        assert label is not None
        images += list(batch.clone())
        labels += label.tolist()
        indices += index.tolist()
    assert indices == list(range(11))
    assert labels == [index % 10 for index in range(11)]
    for position, image in enumerate(images):
        assert torch.equal(image, center_view(decode(source.read(position)), 16))


def test_chosen_images_come_in_the_chosen_order_and_may_lack_labels() -> None:
    source = SyntheticSource(9, labeled=False)
    batches = list(image_batches(source, size=8, batch_size=3, workers=0, indices=np.array([7, 1, 7]), resize=8))
    assert len(batches) == 1
    images, labels, indices = batches[0]
    assert labels is None
    assert indices.tolist() == [7, 1, 7]
    assert torch.equal(images[1], center_view(decode(source.read(1)), 8, 8))


def test_no_images_give_no_batches() -> None:
    indices = np.array([], dtype=np.int64)
    assert list(image_batches(SyntheticSource(9), size=8, batch_size=3, workers=0, indices=indices)) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_an_error_that_names_the_file(tmp_path: Path, workers: int) -> None:
    source = FolderSource(write_class_folders(tmp_path, {"a": 3, "b": 2}), labeled=True)
    (tmp_path / "b" / "000.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"unreadable image \S+b/000.jpg \(the file is empty \(0 bytes\)\); repair it"):
        list(image_batches(source, size=8, batch_size=2, workers=workers))


def test_a_set_with_some_readable_image_passes_the_check(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 20})
    source = FolderSource(tmp_path, labeled=False)
    for file in sorted(tmp_path.rglob("*.jpg"))[:-1]:
        file.write_bytes(b"")
    check_readable(source)


def test_a_set_without_readable_images_fails_the_check(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 20})
    for file in tmp_path.rglob("*.jpg"):
        file.write_bytes(b"text")
    with pytest.raises(ValueError, match=r"no readable image among the 16 tried: \S+000.jpg \(not an image in a known"):
        check_readable(FolderSource(tmp_path, labeled=False))


def test_readable_images_come_once_each_in_an_order_drawn_by_seed(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"a": 5, "b": 5})
    (root / "a" / "002.jpg").write_bytes(b"")
    source = FolderSource(root, labeled=False)
    bad: list[BadImage] = []
    orders = [[index for index, _ in readable_images(source, seed=seed, bad=bad)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert [image.name for image in bad] == ["a/002.jpg"] * 3
    index, image = next(readable_images(source, seed=0, bad=bad))
    assert torch.equal(image, decode(source.read(index)))


def test_a_set_without_a_readable_image_is_refused_after_a_few(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no readable image among the 16 tried: .* check that DATA points"):
        next(readable_images(FolderSource(tmp_path, labeled=False), seed=0, bad=[], setting="DATA"))


@pytest.mark.parametrize("workers", [0, 2])
def test_all_chosen_images_are_decoded_and_the_unreadable_come_with_their_reasons(tmp_path: Path, workers: int) -> None:
    write_class_folders(tmp_path, {"a": 90})
    for number in (3, 70, 80):
        (tmp_path / "a" / f"{number:03}.jpg").write_bytes(b"")
    done: list[int] = []
    source = FolderSource(tmp_path, labeled=False)
    bad = unreadable_images(source, np.arange(75), workers=workers, progress=done.append)
    assert [(image.index, image.name, image.reason) for image in bad] == [
        (3, "a/003.jpg", "the file is empty (0 bytes)"),
        (70, "a/070.jpg", "the file is empty (0 bytes)"),
    ]
    assert sum(done) == 75
