import os
from pathlib import Path

import numpy as np
import pytest

from sslight.data import FolderSource, Source, SyntheticSource, select_subset
from tests.data.pictures import write_class_folders


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return FolderSource(write_class_folders(tmp_path / "images", {"n01": 3, "n02": 2}), labeled=True)


def listed(tmp_path: Path, source: Source, text: str) -> list[int]:
    (tmp_path / "list.txt").write_text(text)
    return list(map(int, select_subset(source, str(tmp_path / "list.txt"), 0)))


def test_a_list_of_names_selects_them_in_the_order_of_the_source(tmp_path: Path, source: Source) -> None:
    assert listed(tmp_path, source, "n02/001.jpg\n\n# a remark\n  n01/000.jpg  \n") == [0, 4]


def test_a_list_of_indices_selects_them(tmp_path: Path, source: Source) -> None:
    assert listed(tmp_path, source, "4\n0\n2\n") == [0, 2, 4]


def test_file_names_alone_select_where_they_are_unique(tmp_path: Path) -> None:
    source = SyntheticSource(30)
    assert listed(tmp_path, source, "0000013.jpg\n0000002.jpg\n") == [2, 13]


def test_a_file_name_that_several_folders_have_is_refused(tmp_path: Path, source: Source) -> None:
    with pytest.raises(ValueError, match=r"1 lines name no image of the set \(first: 000.jpg\)"):
        listed(tmp_path, source, "000.jpg\n")


def test_lines_of_the_originals_lists_are_found_by_name_before_index(tmp_path: Path, source: Source) -> None:
    assert listed(tmp_path, source, "0,7,n02,001.jpg\n1,7,n01,000.jpg\n") == [0, 4]


def test_lines_of_the_originals_lists_are_found_by_index_where_names_differ(tmp_path: Path, source: Source) -> None:
    assert listed(tmp_path, source, "1,0,n01,n01_1.JPEG\n3,1,n02,n02_7.JPEG\n") == [1, 3]


def test_an_original_list_of_another_set_is_noticed_by_its_classes(tmp_path: Path, source: Source) -> None:
    with pytest.raises(ValueError, match=r"1 lines name no image of the set \(first: 1,1,n02,n02_7.JPEG\)"):
        listed(tmp_path, source, "1,1,n02,n02_7.JPEG\n")


def test_entries_are_found_however_people_write_paths(tmp_path: Path, source: Source) -> None:
    root = tmp_path / "images"
    spellings = ["./n01/000.jpg", "n01//001.jpg", f"{root}/n01/002.jpg", "images/n02/000.jpg", "n02\\001.jpg"]
    for ending in ("\n", "\r\n", "\r"):
        for mark in ("", "\ufeff"):
            assert listed(tmp_path, source, mark + ending.join(spellings) + ending) == [0, 1, 2, 3, 4]
    (tmp_path / "list.txt").write_text("\n".join(spellings), encoding="utf-16")
    assert select_subset(source, str(tmp_path / "list.txt"), 0).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("entry", ["/elsewhere/images/n01/000.jpg", "others/n01/000.jpg", "../n01/000.jpg"])
def test_a_path_into_another_folder_names_no_image(tmp_path: Path, source: Source, entry: str) -> None:
    with pytest.raises(
        ValueError, match=r"1 lines name no image of the set .*; a correct entry is n01/000.jpg: correct"
    ):
        listed(tmp_path, source, f"{entry}\n")


def test_names_that_begin_with_a_number_sign_are_found_and_remarks_are_not_missed(tmp_path: Path) -> None:
    source = FolderSource(write_class_folders(tmp_path / "images", {"#1": 2, "b": 1}), labeled=False)
    assert listed(tmp_path, source, "#1/000.jpg\n# a remark\n#b/000.jpg\n#1/001.jpg\n") == [0, 1]
    with pytest.raises(ValueError, match=r"1 lines name no image of the set \(first: #1/002.jpg\)"):
        listed(tmp_path, source, "#1/002.jpg\nb/000.jpg\n")


def test_names_that_are_no_utf8_are_found_as_they_are_and_as_messages_write_them(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "images", {"n01": 3})
    (root / "n01" / "000.jpg").rename(root / os.fsdecode(b"n01/caf\xe9.jpg"))
    source = FolderSource(root, labeled=False)
    assert source.name(2) == os.fsdecode(b"n01/caf\xe9.jpg")
    for entry in (b"n01/caf\xe9.jpg", rb"n01/caf\xe9.jpg"):
        (tmp_path / "list.txt").write_bytes(entry + b"\nn01/001.jpg\n")
        assert select_subset(source, str(tmp_path / "list.txt"), 0).tolist() == [0, 2]
    (tmp_path / "list.txt").write_bytes(b"n01/th\xe9.jpg\n")
    with pytest.raises(ValueError, match=r"first: n01/th\\xe9\.jpg\); the list is not UTF-8 text: save it as UTF-8; a"):
        select_subset(source, str(tmp_path / "list.txt"), 0)


def test_wrong_entries_are_counted_and_the_first_are_shown(tmp_path: Path, source: Source) -> None:
    with pytest.raises(ValueError, match=r"list.txt: 4 lines name no image of the set \(first: 5, x.jpg, -1\)"):
        listed(tmp_path, source, "5\nx.jpg\n-1\n0\ny.jpg\n")


def test_repeated_images_are_refused(tmp_path: Path, source: Source) -> None:
    with pytest.raises(
        ValueError, match=r"2 lines name an image that another line names too \(first: 0, n01/000.jpg\)"
    ):
        listed(tmp_path, source, "0\nn01/000.jpg\n1\n")


def test_an_empty_or_missing_list_is_refused(tmp_path: Path, source: Source) -> None:
    with pytest.raises(ValueError, match="lists no image; write one name or index per line"):
        listed(tmp_path, source, "# nothing\n")
    with pytest.raises(ValueError, match=r"data.subset=nowhere.txt cannot be read .* give a list file .* or a share"):
        select_subset(source, "nowhere.txt", 0)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
def test_a_share_outside_0_to_1_is_refused(source: Source, share: float) -> None:
    with pytest.raises(ValueError, match="is not a share; give a number above 0 and at most 1"):
        select_subset(source, share, 0)


class Imbalanced:
    """Only what ``select_subset`` asks of a source when it draws a share."""

    def __init__(self, sizes: list[int]) -> None:
        rng = np.random.default_rng(0)
        self.labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
        self.classes = tuple(str(index) for index in range(len(sizes)))

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        raise AssertionError("a draw reads no image")

    def name(self, index: int) -> str:
        raise AssertionError("a draw needs no name")

    locate = name


def test_a_share_is_stratified_and_halves_are_rounded_up_with_at_least_one() -> None:
    source = Imbalanced([100, 25, 4, 1])
    chosen = select_subset(source, 0.1, seed=3)
    assert np.bincount(source.labels[chosen]).tolist() == [10, 3, 1, 1]
    assert np.all(np.diff(chosen) > 0)


def test_a_larger_share_contains_the_smaller_one_and_seeds_differ() -> None:
    source = Imbalanced([200, 100])
    small, large = select_subset(source, 0.1, 0), select_subset(source, 0.4, 0)
    assert set(small) < set(large)
    assert set(small) != set(select_subset(source, 0.1, 1))
    assert np.array_equal(small, select_subset(source, 0.1, 0))


def test_the_share_of_an_unlabelled_source_is_drawn_from_all_images() -> None:
    chosen = select_subset(SyntheticSource(100, labeled=False), 0.25, 0)
    assert len(set(chosen.tolist())) == 25
    assert select_subset(SyntheticSource(100, labeled=False), 1.0, 0).tolist() == list(range(100))


def test_what_is_no_list_is_refused_in_a_short_sentence(tmp_path: Path, source: Source) -> None:
    with pytest.raises(ValueError, match=r"list\.txt is not a text file in UTF-8 or UTF-16; give a list file"):
        listed(tmp_path, source, 'weights\0\n{"a": 1}\n')
    with pytest.raises(ValueError, match=r"first: x{77}\.\.\.\)"):
        listed(tmp_path, source, "x" * 10_000)
