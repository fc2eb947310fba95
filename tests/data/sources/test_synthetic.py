import numpy as np
import pytest

from sslight.data import SyntheticSource, decode


def test_an_image_depends_on_seed_split_and_index_only() -> None:
    first, again = SyntheticSource(20), SyntheticSource(9)
    assert first.read(7) == again.read(7)
    assert first.read(7) != SyntheticSource(20, seed=1).read(7)
    assert first.read(7) != SyntheticSource(20, split="val").read(7)
    assert first.read(7) != first.read(17)


def test_images_are_square_colour_pictures_of_the_asked_size() -> None:
    for size in (32, 64, 100):
        assert decode(SyntheticSource(1, size=size).read(0)).shape == (3, size, size)


def test_classes_are_balanced_and_named_by_their_pattern() -> None:
    source = SyntheticSource(100)
    assert source.labels is not None
    assert source.classes is not None
    assert np.bincount(source.labels).tolist() == [10] * 10
    assert all(source.name(i).startswith(source.classes[source.labels[i]]) for i in range(100))


def test_colour_says_nothing_about_the_class() -> None:
    source = SyntheticSource(600)
    assert source.labels is not None
    colors = np.stack([decode(source.read(index)).float().mean(dim=(1, 2)).numpy() for index in range(600)])
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    agreement = (source.labels[distances.argmin(axis=1)] == source.labels).mean()
    # One in ten by chance, and 0.012 standard deviation.
    assert agreement < 0.17


def test_without_labels_there_are_no_classes() -> None:
    source = SyntheticSource(3, labeled=False)
    assert source.labels is None
    assert source.classes is None


def test_more_classes_than_patterns_are_refused() -> None:
    with pytest.raises(ValueError, match="num_classes=11 of the synthetic set must be 2 to 10"):
        SyntheticSource(3, num_classes=11)
