"""Features with names, from whatever holds images."""

import csv
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch

import sslight
from sslight.api.predict import embed
from sslight.backbones import build_backbone, save_backbone
from sslight.data import FolderSource
from sslight.evaluate.features.extract import EvalTransform, Extraction, extract_features

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """An export whose size and normalisation are not the usual ones."""
    torch.manual_seed(0)
    path = tmp_path / "backbone.safetensors"
    save_backbone(
        build_backbone("test_resnet"), path, name="test_resnet", image_size=32, patch_size=None, mean=MEAN, std=STD
    )
    return path


def test_features_of_a_folder_are_those_of_the_evaluation_with_the_checkpoints_size_and_normalisation(
    checkpoint: Path, image_folder: Callable[..., Path]
) -> None:
    folder = image_folder("images", classes=("a", "b"), each=3)
    result = sslight.embed(folder, checkpoint)
    source = FolderSource(folder, labeled=False)
    expected, _ = extract_features(
        sslight.load_backbone(checkpoint), source, EvalTransform(32, MEAN, STD), Extraction()
    )
    assert torch.equal(result.features, expected)
    assert result.names == tuple(source.name(index) for index in range(6))
    assert result.unreadable == ()
    assert result.features.numpy().dtype.name == "float32"


def test_named_files_come_in_their_order_and_batches_change_nothing(
    checkpoint: Path, image_folder: Callable[..., Path]
) -> None:
    files = sorted(image_folder("images", each=5).iterdir())
    whole = embed(files[0].parent, checkpoint)
    back = embed(files[::-1], checkpoint, batch_size=2)
    assert back.names == tuple(str(file) for file in files[::-1])
    torch.testing.assert_close(back.features, whole.features.flip(0))
    single = embed(files[2], checkpoint)
    torch.testing.assert_close(single.features, whole.features[2:3])


def test_unreadable_files_are_left_out_and_named(checkpoint: Path, image_folder: Callable[..., Path]) -> None:
    folder = image_folder("images", each=4)
    (folder / "001.jpg").write_bytes(b"no picture")
    result = embed(folder, checkpoint, batch_size=1)
    assert result.names == ("000.jpg", "002.jpg", "003.jpg")
    assert len(result.features) == 3
    assert [image.name for image in result.unreadable] == ["001.jpg"]
    assert "not an image" in result.unreadable[0].reason


def test_a_new_timm_network_and_drawn_images_and_another_size_will_do() -> None:
    result = embed("synthetic:3", "timm:test_resnet", image_size=48)
    assert result.features.shape[0] == len(result.names) == 3


def test_what_gives_no_features_is_said_in_a_sentence(checkpoint: Path, image_folder: Callable[..., Path]) -> None:
    folder = image_folder("images", each=1)
    with pytest.raises(
        ValueError, match=r"^images: 1 of 1 paths are not files \(first: nowhere\); give only image files"
    ):
        embed("nowhere", checkpoint)
    with pytest.raises(ValueError, match=r"images=.*000\.jpg is a file, but not"):
        embed([folder, folder / "000.jpg"], checkpoint)
    with pytest.raises(ValueError, match="images: no image given"):
        embed([], checkpoint)
    (folder / "000.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="no readable image among the 1 tried"):
        embed(folder, checkpoint)
    with pytest.raises(ValueError, match=r"there is no file .*missing\.pt"):
        embed("synthetic:2", checkpoint.with_name("missing.pt"))


def test_weights_that_give_no_numbers_are_refused_with_the_first_image(checkpoint: Path) -> None:
    broken = sslight.load_backbone(checkpoint)
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    save_backbone(broken, checkpoint, name="test_resnet", image_size=32, patch_size=None, mean=MEAN, std=STD)
    with pytest.raises(ValueError, match=r"features that are not finite numbers \(first for"):
        embed("synthetic:2", checkpoint)


def test_the_most_alike_of_the_others_are_named_as_a_loop_over_all_pairs_finds_them(
    checkpoint: Path, image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = image_folder("images", each=5)
    result = embed(folder, checkpoint, neighbors=3)
    assert result.neighbors is not None
    for row, (others, cosines) in enumerate(zip(result.neighbors.rows, result.neighbors.similarities, strict=True)):
        features = result.features.double()
        pairs = [(float(torch.cosine_similarity(features[row], features[at], 0)), at) for at in range(5) if at != row]
        expected = sorted(pairs, reverse=True)[:3]
        assert others.tolist() == [at for _, at in expected]
        assert cosines.tolist() == pytest.approx([cosine for cosine, _ in expected], abs=1e-5)
    names = [[result.names[at] for at in row] for row in result.neighbors.rows.tolist()]
    for name in ("f.npz", "f.csv", "f.parquet"):
        embed(folder, checkpoint, output=tmp_path / name, neighbors=3)
    with np.load(tmp_path / "f.npz") as found:
        assert found["neighbors"].tolist() == names
        np.testing.assert_array_equal(found["similarities"], result.neighbors.similarities.numpy())
    columns = pyarrow.parquet.read_table(tmp_path / "f.parquet").to_pydict()
    assert columns["neighbors"] == names
    with (tmp_path / "f.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [[row[f"neighbor{number}"] for number in (1, 2, 3)] for row in rows] == names
    assert float(rows[0]["similarity1"]) == pytest.approx(float(result.neighbors.similarities[0, 0]), rel=1e-5)
    assert embed(folder, checkpoint).neighbors is None


@pytest.mark.parametrize("neighbors", [0, 2, 3])
def test_more_neighbors_than_readable_images_are_refused(
    checkpoint: Path, image_folder: Callable[..., Path], neighbors: int
) -> None:
    folder = image_folder("images", each=3)
    (folder / "001.jpg").write_bytes(b"no picture")
    with pytest.raises(
        ValueError, match=rf"^neighbors={neighbors} is not possible with the number of images, [23]: choose"
    ):
        embed(folder, checkpoint, neighbors=neighbors)


def test_a_result_may_be_named_by_a_text_and_by_no_other_suffix(tmp_path: Path) -> None:
    embed("synthetic:3", "timm:test_resnet", output=str(tmp_path / "f.csv"))
    assert len((tmp_path / "f.csv").read_text(encoding="utf-8").splitlines()) == 4
    with pytest.raises(ValueError, match=r"f\.npy must end in \.npz or \.csv or \.parquet"):
        embed("synthetic:3", "timm:test_resnet", output=tmp_path / "f.npy")


def test_a_name_that_is_no_utf8_is_in_every_result(
    checkpoint: Path, image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = image_folder("images", each=3)
    (folder / "001.jpg").rename(folder / os.fsdecode(b"caf\xe9.jpg"))
    for name in ("f.npz", "f.csv", "f.parquet"):
        embed(folder, checkpoint, output=tmp_path / name, neighbors=1)
    with np.load(tmp_path / "f.npz") as found:
        assert found["names"].tolist() == ["000.jpg", "002.jpg", os.fsdecode(b"caf\xe9.jpg")]
    columns = pyarrow.parquet.read_table(tmp_path / "f.parquet").to_pydict()
    with (tmp_path / "f.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert columns["name"] == [row["name"] for row in rows] == ["000.jpg", "002.jpg", r"caf\xe9.jpg"]
    assert [names for (names,) in columns["neighbors"]] == [row["neighbor1"] for row in rows]
