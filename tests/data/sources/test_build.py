from pathlib import Path

import h5py
import numpy as np
import pytest

from sslight.data import ConcatSource, FolderSource, H5Source, SyntheticSource, build_source
from tests.data.pictures import jpeg, write_class_folders


def test_the_kind_of_source_follows_from_the_path(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "images", {"a": 1, "b": 1})
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["a/0"] = np.frombuffer(jpeg(), dtype=np.uint8)
    assert isinstance(build_source([str(folder)], labeled=False), FolderSource)
    assert isinstance(build_source([str(tmp_path / "t.h5")], labeled=False), H5Source)
    assert isinstance(build_source(["synthetic:5"], labeled=False), SyntheticSource)


def test_several_paths_are_joined_under_their_own_names(tmp_path: Path) -> None:
    first = write_class_folders(tmp_path / "first", {"a": 1, "b": 1})
    second = write_class_folders(tmp_path / "second", {"a": 1, "b": 1})
    source = build_source([str(first), str(second)], labeled=True)
    assert isinstance(source, ConcatSource)
    assert [source.name(index) for index in (0, 3)] == ["first/a/000.jpg", "second/b/000.jpg"]


def test_paths_with_the_same_last_part_keep_their_whole_paths_as_names(tmp_path: Path) -> None:
    paths = [str(write_class_folders(tmp_path / part / "train", {"a": 1, "b": 1})) for part in ("x", "y")]
    source = build_source(paths, labeled=False)
    assert source.name(0) == f"{paths[0]}/a/000.jpg"


def test_synthetic_validation_images_are_others_of_the_same_classes() -> None:
    train = build_source(["synthetic:4"], labeled=True)
    val = build_source(["synthetic:4:val"], labeled=True)
    assert train.classes == val.classes
    assert train.read(0) != val.read(0)


@pytest.mark.parametrize("path", ["synthetic:", "synthetic:0", "synthetic:-3", "synthetic:ten", "synthetic:9:test"])
def test_a_wrong_synthetic_name_is_explained(path: str) -> None:
    with pytest.raises(ValueError, match=f"data.val={path} is not of the form synthetic:N"):
        build_source([path], labeled=False, setting="data.val")


def test_wrong_paths_are_named_with_their_setting_and_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data.train=\S+nowhere does not exist; give a folder"):
        build_source([str(tmp_path / "nowhere")], labeled=False)
    (tmp_path / "list.txt").write_text("x")
    with pytest.raises(ValueError, match=r"list.txt is a file, but not .h5, .tar or .parquet; give a folder"):
        build_source([str(tmp_path / "list.txt")], labeled=False)
    with pytest.raises(ValueError, match=r"data.train is empty: set it to a folder"):
        build_source([], labeled=False)
    folder = str(write_class_folders(tmp_path / "images", {"a": 1, "b": 1}))
    (tmp_path / "link").symlink_to(folder)
    for again in (folder, f"{folder}/", f"{tmp_path}/./images", str(tmp_path / "link")):
        with pytest.raises(ValueError, match=rf"the same path is given twice: {again}; name each path once"):
            build_source([folder, again], labeled=False)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
def test_a_truncated_h5_file_ends_in_a_sentence(tmp_path: Path, share: float) -> None:
    whole = tmp_path / "whole.h5"
    with h5py.File(whole, "w") as file:
        for number in range(200):
            file[f"a/{number:03d}"] = np.frombuffer(jpeg(), dtype=np.uint8)
    encoded = whole.read_bytes()
    (tmp_path / "t.h5").write_bytes(encoded[: int(share * len(encoded))])
    with pytest.raises(ValueError, match=r"data.train=\S+t.h5 cannot be read \(.+\); check the path"):
        build_source([str(tmp_path / "t.h5")], labeled=False)
