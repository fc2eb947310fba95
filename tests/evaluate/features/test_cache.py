"""Features on disk: right, computed once, whole or not there."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sslight.data import FolderSource, Source, SubsetSource, build_source, decode, evenly_spread
from sslight.data.sources.fingerprint import NUM_READ_IMAGES
from sslight.evaluate.features.cache import CachedFeatures, cached_features
from sslight.evaluate.features.extract import EvalTransform, Extraction
from sslight.views import center_view, normalize
from tests.evaluate.pooled import Pooled

TRANSFORM = EvalTransform(24, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


@pytest.fixture
def source(image_folder: Callable[..., Path]) -> Source:
    return build_source([str(image_folder("images", ("a", "b"), each=6))], labeled=True)


def features(backbone: Pooled, source: Source, folder: Path, **changes: Any) -> CachedFeatures:
    transform = replace(TRANSFORM, **changes)
    return cached_features(backbone, source, transform, Extraction(batch_size=5), folder=folder)


def one_by_one(backbone: Pooled, source: Source) -> torch.Tensor:
    views = [center_view(decode(source.read(i)), 24) for i in range(len(source))]
    with torch.no_grad():
        return torch.cat([backbone(normalize(view[None, None], TRANSFORM.mean, TRANSFORM.std)) for view in views])


def test_features_are_those_of_one_image_at_a_time_and_of_the_second_time(source: Source, tmp_path: Path) -> None:
    backbone = Pooled().train()
    first = features(backbone, source, tmp_path / "cache")
    assert backbone.images_seen == 12
    assert backbone.training
    torch.testing.assert_close(first.features, one_by_one(Pooled(), source))
    assert first.indices.tolist() == list(range(12))
    again = features(backbone, source, tmp_path / "cache")
    assert backbone.images_seen == 12
    assert (first.from_cache, again.from_cache) == (False, True)
    assert torch.equal(again.features, first.features)


def test_other_weights_data_or_transform_are_computed_anew(source: Source, tmp_path: Path) -> None:
    reversed_source = SubsetSource(source, torch.arange(12).flip(0).numpy())
    features(Pooled(), source, tmp_path)
    assert not features(Pooled(2.0), source, tmp_path).from_cache
    assert not features(Pooled(), source, tmp_path, resize=30).from_cache
    assert not features(Pooled(), source, tmp_path, mean=(0.5, 0.5, 0.5)).from_cache
    turned = features(Pooled(), reversed_source, tmp_path)
    assert not turned.from_cache
    torch.testing.assert_close(turned.features, one_by_one(Pooled(), source).flip(0))


def test_any_changed_image_is_noticed_and_not_only_one_that_the_fingerprint_reads(
    tmp_path: Path, image_folder: Callable[..., Path]
) -> None:
    folder = image_folder("many", each=200)
    source = FolderSource(folder, labeled=False)
    first = features(Pooled(), source, tmp_path / "cache")
    read = set(evenly_spread(200, NUM_READ_IMAGES).tolist())
    changed = next(index for index in range(200) if index not in read)
    (folder / f"{changed:03}.jpg").write_bytes((folder / f"{(changed + 5) % 200:03}.jpg").read_bytes())
    again = features(Pooled(), FolderSource(folder, labeled=False), tmp_path / "cache")
    assert not again.from_cache
    torch.testing.assert_close(again.features[changed], first.features[(changed + 5) % 200])


def test_an_image_that_changed_is_noticed(source: Source, tmp_path: Path, image_folder: Callable[..., Path]) -> None:
    features(Pooled(), source, tmp_path / "cache")
    other = image_folder("other images", each=1) / "000.jpg"
    other.replace(tmp_path / "images" / "b" / "003.jpg")
    assert not features(Pooled(), source, tmp_path / "cache").from_cache


@pytest.mark.parametrize("name", ["features.npy", "readable.npy", "checksums.json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_entry_is_computed_anew_and_replaced(source: Source, tmp_path: Path, name: str, damage: str) -> None:
    expected = features(Pooled(), source, tmp_path).features.clone()
    (file,) = tmp_path.glob(f"*/{name}")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    match damage:
        case "flipped":
            file.write_bytes(content)
        case "cut":
            file.write_bytes(content[:-1])
        case "gone":
            file.unlink()
    repaired = features(Pooled(), source, tmp_path)
    assert not repaired.from_cache
    assert torch.equal(repaired.features, expected)
    assert features(Pooled(), source, tmp_path).from_cache


def test_an_interruption_leaves_nothing_behind(source: Source, tmp_path: Path) -> None:
    class Interrupted(Pooled):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.images_seen >= 5:
                raise KeyboardInterrupt
            return super().forward(x)

    with pytest.raises(KeyboardInterrupt):
        features(Interrupted(), source, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_caller_does_to_features_does_not_reach_the_disk(source: Source, tmp_path: Path) -> None:
    first = features(Pooled(), source, tmp_path).features
    expected = first.clone()
    first.zero_()
    assert torch.equal(features(Pooled(), source, tmp_path).features, expected)


def test_features_that_are_not_finite_are_refused_with_the_image(source: Source, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not finite numbers \(first for .*a/000.jpg\): its weights are broken"):
        features(Pooled(float("nan")), source, tmp_path)
    assert list(tmp_path.glob("*/features.npy")) == []


def test_unreadable_images_are_left_out_and_counted(source: Source, tmp_path: Path) -> None:
    expected = one_by_one(Pooled(), source)
    (tmp_path / "images" / "a" / "002.jpg").write_bytes(b"no picture")
    for _ in range(2):
        found = features(Pooled(), source, tmp_path / "cache")
        assert found.num_unreadable == 1
        assert found.indices.tolist() == [0, 1, *range(3, 12)]
        torch.testing.assert_close(found.features, expected[[0, 1, *range(3, 12)]])


def test_an_image_that_was_repaired_is_read_again(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_folder("many", ("a", "b"), each=50)
    broken = folder / "a" / "001.jpg"  # not among those whose bytes are part of the set's fingerprint
    whole = broken.read_bytes()
    broken.write_bytes(b"no picture")
    source = build_source([str(folder)], labeled=True)
    assert features(Pooled(), source, tmp_path / "cache").num_unreadable == 1
    assert features(Pooled(), source, tmp_path / "cache").from_cache
    broken.write_bytes(whole)
    again = features(Pooled(), build_source([str(folder)], labeled=True), tmp_path / "cache")
    assert (again.num_unreadable, again.from_cache) == (0, False)
