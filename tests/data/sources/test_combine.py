from pathlib import Path

import numpy as np
import pytest

from sslight.data import ConcatSource, FolderSource, SubsetSource, SyntheticSource, labels_in
from tests.data.pictures import write_class_folders


def two_folders(tmp_path: Path, *, labeled: bool) -> tuple[FolderSource, FolderSource]:
    first = write_class_folders(tmp_path / "first", {"dog": 2, "ant": 1})
    second = write_class_folders(tmp_path / "second", {"cat": 1, "dog": 2})
    return FolderSource(first, labeled=labeled), FolderSource(second, labeled=labeled)


def test_labels_of_joined_sources_follow_class_names(tmp_path: Path) -> None:
    joined = ConcatSource(two_folders(tmp_path, labeled=True), ["1", "2"])
    assert joined.classes == ("ant", "cat", "dog")
    assert joined.labels is not None
    assert joined.labels.tolist() == [0, 2, 2, 1, 2, 2]


def test_joined_sources_read_from_the_right_part(tmp_path: Path) -> None:
    first, second = two_folders(tmp_path, labeled=False)
    joined = ConcatSource([first, second], ["1", "2"])
    assert joined.labels is None
    assert [joined.read(index) for index in range(6)] == [
        part.read(index) for part in (first, second) for index in range(3)
    ]
    assert joined.name(3) == "2/cat/000.jpg"
    assert joined.locate(3) == second.locate(0)
    with pytest.raises(IndexError):
        joined.read(6)


def test_one_unlabelled_part_makes_the_whole_unlabelled(tmp_path: Path) -> None:
    first, _ = two_folders(tmp_path, labeled=True)
    joined = ConcatSource([first, SyntheticSource(3, labeled=False)], ["1", "2"])
    assert joined.labels is None
    assert joined.classes is None


def test_a_subset_keeps_names_labels_and_all_classes() -> None:
    whole = SyntheticSource(30)
    part = SubsetSource(whole, np.array([3, 13, 29]))
    assert len(part) == 3
    assert part.labels is not None
    assert part.labels.tolist() == [3, 3, 9]
    assert part.classes == whole.classes
    assert (part.name(1), part.read(1), part.locate(1)) == (whole.name(13), whole.read(13), whole.locate(13))


def test_labels_are_translated_to_another_sets_classes_by_name(tmp_path: Path) -> None:
    first, second = two_folders(tmp_path, labeled=True)
    assert labels_in(second, ("ant", "cat", "dog")).tolist() == [1, 2, 2]
    assert first.classes is not None
    with pytest.raises(ValueError, match=r"1 of 2 classes are not among the 2 training classes \(first: cat\)"):
        labels_in(second, first.classes)
    with pytest.raises(ValueError, match="without labels"):
        labels_in(SyntheticSource(3, labeled=False), first.classes)
