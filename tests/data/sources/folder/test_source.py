import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sslight.data import ConcatSource, FolderSource, SubsetSource, SyntheticSource, inspect_source, source_notice
from tests.data.pictures import jpeg, write_class_folders


def names(source: FolderSource) -> list[str]:
    return [source.name(index) for index in range(len(source))]


def test_class_folders_give_labels_by_sorted_class_name(tmp_path: Path) -> None:
    source = FolderSource(write_class_folders(tmp_path, {"zebra": 2, "ant": 1, "cat": 3}), labeled=True)
    assert source.classes == ("ant", "cat", "zebra")
    assert source.labels is not None
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == [0, 1, 1, 1, 2, 2]
    assert names(source)[:2] == ["ant/000.jpg", "cat/000.jpg"]


def test_an_unlabelled_source_has_the_same_images_and_no_class_mapping(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"b": 2, "a": 1})
    source = FolderSource(tmp_path, labeled=False)
    assert source.classes is None
    assert source.labels is None
    assert names(source) == names(FolderSource(tmp_path, labeled=True))


def test_images_deeper_in_a_class_folder_belong_to_the_class(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a/left": 1, "a/right": 1, "b": 1})
    source = FolderSource(tmp_path, labeled=True)
    assert source.classes == ("a", "b")
    assert names(source) == ["a/left/000.jpg", "a/right/000.jpg", "b/000.jpg"]


def test_classes_come_in_the_order_of_their_names_not_of_their_paths(tmp_path: Path) -> None:
    # As strings, "a-b/…" sorts before "a/…"; as names, "a" sorts before "a-b".
    source = FolderSource(write_class_folders(tmp_path, {"a-b": 1, "a": 1}), labeled=True)
    assert source.classes == ("a", "a-b")
    assert names(source) == ["a/000.jpg", "a-b/000.jpg"]


def test_an_empty_class_folder_is_no_class(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 1, "empty": 0, "z": 1})
    assert FolderSource(tmp_path, labeled=True).classes == ("a", "z")


def test_read_gives_the_bytes_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(jpeg(3))
    source = FolderSource(tmp_path, labeled=False)
    assert source.read(0) == jpeg(3)
    assert source.locate(0) == str(tmp_path / "x.jpg")


def test_only_visible_files_with_image_suffixes_of_any_case_are_images(tmp_path: Path) -> None:
    suffixes = ["JPG", "JPEG", "Png", "webp", "bmp", "TIF", "tiff", "gif", "ppm", "pgm", "pbm", "pnm", "jfif", "jpe"]
    suffixes += ["heic", "HEIF", "avif", "jp2", "hif", "mpo"]
    for suffix in suffixes:
        (tmp_path / f"a.{suffix}").write_bytes(b"x")
    for name in (".hidden.jpg", "notes.txt", "jpg", "x.jpg.part", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "y.jpg").write_bytes(b"x")
    assert len(FolderSource(tmp_path, labeled=False)) == len(suffixes)


def a_folder_like_peoples(root: Path) -> Path:
    write_class_folders(root, {"trip": 3})
    for name in (
        "IMG_1.MOV",
        "IMG_2.mov",
        "notes.TXT",
        "LICENSE",
        "old.zip",
        "a.CR2",
        "b.dng",
        ".hidden.jpg",
        ".DS_Store",
    ):
        (root / "trip" / name).write_bytes(b"x")
    for folder in ("@eaDir", ".thumbnails", "__MACOSX"):
        write_class_folders(root / "trip" / folder, {"a": 2})
    (root / "gone.jpg").symlink_to(root / "nowhere.jpg")
    return root


def test_whatever_is_left_out_of_a_folder_is_counted_and_said(tmp_path: Path) -> None:
    source = FolderSource(a_folder_like_peoples(tmp_path), labeled=False)
    assert names(source) == ["trip/000.jpg", "trip/001.jpg", "trip/002.jpg"]
    assert source.passed_over == {
        ".mov": 2,
        ".txt": 1,
        "without a suffix": 1,
        ".zip": 1,
        ".cr2": 1,
        ".dng": 1,
        "hidden images": 1,
        "@eaDir/": 1,
        ".thumbnails/": 1,
        "__MACOSX/": 1,
        "links to nothing, pipes or devices named like images": 1,
    }
    joined = ConcatSource([source, SyntheticSource(5, labeled=False), source], ["a", "b", "c"])
    notice = source_notice(SubsetSource(joined, np.arange(4)))
    assert notice.startswith("4 images; skipped: 4 .mov, ")
    assert "2 .cr2, 2 .dng (raw photographs, which are not read: export them as JPEG or TIFF)" in notice
    assert "2 .zip (archives: unpack them, .tar.gz to .tar)" in notice
    assert "2 .thumbnails/, 2 @eaDir/, 2 __MACOSX/ (hidden folders and thumbnails)" in notice
    assert source_notice(SyntheticSource(5)) == "5 images"


def test_pictures_that_look_like_masks_are_trained_on_but_said(image_folder: Callable[..., Path]) -> None:
    root = image_folder("set", ("images", "Masks", "labels"), each=3)
    (root / "labels" / "002.jpg").rename(root / "labels" / "other.jpg")
    source = FolderSource(root, labeled=False)
    said = "5 of them look like masks (Masks/000.jpg): to exclude them, give the folder of the pictures"
    assert source_notice(source) == f"9 images; {said}"
    assert inspect_source(source).masks == said
    assert source_notice(FolderSource(root / "images", labeled=False)) == "3 images"
    for folder in ("Masks", "images"):
        (root / folder / "000.jpg").rename(root / folder / os.fsdecode(b"\xe9.jpg"))
    source_notice(FolderSource(root, labeled=False)).encode()  # a name that is not UTF-8 can be printed


def test_what_is_passed_over_is_kept_with_the_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslight.data.sources.folder.listing.SMALLEST_CACHED", 1)
    monkeypatch.setattr("sslight.data.sources.tables.SETTLED_NS", 0)
    root = write_class_folders(tmp_path / "set", {"a": 2})
    (root / "a" / "x.mov").write_bytes(b"x")
    time.sleep(0.02)
    first = FolderSource(root, labeled=False)
    monkeypatch.setattr("sslight.data.sources.folder.listing._Walk", None)
    assert FolderSource(root, labeled=False).passed_over == first.passed_over == {".mov": 1}


def test_a_folder_of_raw_photographs_or_archives_alone_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for name in ("a.nef", "b.NEF", "c.zip"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"holds no images \(skipped: 2 .nef \(raw .* export them .* 1 .zip \(archives"
    ):
        FolderSource(tmp_path, labeled=False)


def test_a_folder_with_an_image_suffix_is_searched(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"shots.jpg": 1})
    assert names(FolderSource(tmp_path, labeled=False)) == ["shots.jpg/000.jpg"]


def test_names_may_be_unicode_have_spaces_commas_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    odd = ["grün und schön.jpg", "a,b c.jpg", "猫.jpg", "line\nbreak.jpg"]
    for name in odd:
        (tmp_path / name).write_bytes(jpeg())
    (tmp_path / os.fsdecode(b"\xff\xfe.jpg")).write_bytes(jpeg(1))
    source = FolderSource(tmp_path, labeled=False)
    assert set(names(source)) >= set(odd)
    assert [len(source.read(index)) > 0 for index in range(5)] == [True] * 5
    for index in range(5):
        source.locate(index).encode("utf-8")


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "store", {"a": 2})
    root = tmp_path / "root"
    (root / "b").mkdir(parents=True)
    (root / "a").symlink_to(tmp_path / "store" / "a")
    (root / "b" / "one.jpg").symlink_to(tmp_path / "store" / "a" / "000.jpg")
    source = FolderSource(root, labeled=True)
    assert names(source) == ["a/000.jpg", "a/001.jpg", "b/one.jpg"]
    assert source.read(2) == source.read(0)


def test_a_link_to_a_containing_folder_is_not_followed(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 1})
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert names(FolderSource(tmp_path, labeled=False)) == ["a/000.jpg"]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(ValueError, match=r"holds no images \(skipped: 1 .txt\); give a folder with files"):
        FolderSource(tmp_path, labeled=False)


def test_labels_from_a_folder_without_class_folders_are_refused(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "loose.jpg").write_bytes(jpeg())
    with pytest.raises(ValueError, match="1 of 3 images outside any sub-folder, so it has no labels; use one sub"):
        FolderSource(tmp_path, labeled=True)


def test_labels_from_a_single_class_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"all images in one sub-folder \(a\)"):
        FolderSource(write_class_folders(tmp_path, {"a": 3}), labeled=True)


def test_indices_outside_the_set_are_errors(tmp_path: Path) -> None:
    source = FolderSource(write_class_folders(tmp_path, {"a": 2}), labeled=False)
    for index in (-1, 2):
        with pytest.raises(IndexError):
            source.read(index)
