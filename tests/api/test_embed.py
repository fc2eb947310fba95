"""Features with names, from whatever holds images."""

from collections.abc import Callable
from pathlib import Path

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
    with pytest.raises(ValueError, match=r"^images: 1 of 1 paths are not files \(first: nowhere\); give image files"):
        embed("nowhere", checkpoint)
    with pytest.raises(ValueError, match=r"images=.*000\.jpg is a file but neither"):
        embed([folder, folder / "000.jpg"], checkpoint)
    with pytest.raises(ValueError, match="images: there is no image"):
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
