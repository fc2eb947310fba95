import multiprocessing
import os
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from sslight.data import H5Source, UnreadableImage
from sslight.data.sources.h5.index import h5_index_path, write_h5_index
from sslight.data.sources.names import NameTable
from sslight.data.sources.tables import Table, read_table, write_table
from tests.data.pictures import jpeg


def as_row(encoded: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(encoded, dtype=np.uint8)


def write(path: Path, classes: dict[str, list[str]], **options: bool) -> Path:
    """The original's layout, in the given order; image number n has the bytes of ``jpeg(n)``."""
    number = 0
    with h5py.File(path, "w", **options) as file:
        for name, images in classes.items():
            group = file.create_group(name, **options)
            for image in images:
                group.create_dataset(image, data=as_row(jpeg(number)))
                number += 1
    return path


def test_images_follow_sorted_classes_and_names_whatever_the_order_of_creation(tmp_path: Path) -> None:
    path = write(tmp_path / "t.h5", {"n2": ["b.JPEG", "a.JPEG"], "n1": ["z", "y", "x"]}, track_order=True)
    source = H5Source(path, labeled=True)
    assert [source.name(index) for index in range(5)] == ["n1/x", "n1/y", "n1/z", "n2/a.JPEG", "n2/b.JPEG"]
    assert source.classes == ("n1", "n2")
    assert source.labels is not None
    assert source.labels.tolist() == [0, 0, 0, 1, 1]
    assert [source.read(index) for index in range(5)] == [jpeg(n) for n in (4, 3, 2, 1, 0)]
    assert source.locate(3) == f"{path}:n2/a.JPEG"


def test_without_labels_the_images_are_the_same(tmp_path: Path) -> None:
    source = H5Source(write(tmp_path / "t.h5", {"b": ["1"], "a": ["1", "0"]}), labeled=False)
    assert source.labels is None
    assert source.classes is None
    assert [source.name(index) for index in range(3)] == ["a/0", "a/1", "b/1"]


def test_rows_of_bytes_and_opaque_scalars_are_read_alike(tmp_path: Path) -> None:
    encoded = jpeg() + b"\0\0"
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["a/0_row"] = as_row(encoded)
        file["a/1_opaque"] = np.void(encoded)
        file["a/2_signed"] = as_row(encoded).view(np.int8)
        file["a/3_text"] = np.bytes_(encoded[:-2] + b"x")
        file.create_dataset("a/4_compressed", data=as_row(encoded), compression="gzip", chunks=True)
        file["a/5_empty"] = np.empty(0, np.uint8)
    source = H5Source(tmp_path / "t.h5", labeled=False)
    expected = [encoded, encoded, encoded, encoded[:-2] + b"x", encoded, b""]
    assert [source.read(index) for index in range(6)] == expected


def test_a_file_with_a_block_of_its_user_in_front_is_read_alike(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "t.h5", "w", userblock_size=1024) as file:
        file["a/0"] = as_row(jpeg(3))
    assert H5Source(tmp_path / "t.h5", labeled=False).read(0) == jpeg(3)


def test_a_dataset_beyond_the_end_of_the_file_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "t.h5"
    with h5py.File(path, "w") as file:
        file["a/0"] = as_row(bytes(100_000))
        end = file["a/0"].id.get_offset() + 100_000
    source = H5Source(path, labeled=False)
    assert source.read(0) == bytes(100_000)
    with path.open("r+b") as raw:
        raw.truncate(end - 10)
    with pytest.raises(UnreadableImage, match="ends within the dataset of 100,000 bytes"):
        source.read(0)


def test_names_that_are_not_utf_8_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_group(b"a\xff").create_dataset(b"\xfe.jpg", data=as_row(jpeg()))
        file["b/0"] = as_row(jpeg(1))
    source = H5Source(tmp_path / "t.h5", labeled=True)
    assert source.name(0) == os.fsdecode(b"a\xff/\xfe.jpg")
    assert [source.read(index) for index in range(2)] == [jpeg(), jpeg(1)]
    source.locate(0).encode("utf-8")


def test_the_listing_of_a_large_file_is_kept_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sslight.data.sources.tables.SMALLEST_CACHED", 1)
    monkeypatch.setattr("sslight.data.sources.tables.SETTLED_NS", -(10**12))
    path = write(tmp_path / "t.h5", {"b": ["1"], "a": ["1", "0"]})
    first = H5Source(path, labeled=True)
    with monkeypatch.context() as patch:
        patch.setattr("sslight.data.sources.h5.index._listing", lambda path: pytest.fail("the file was listed"))
        again = H5Source(path, labeled=True)
    assert [again.name(index) for index in range(3)] == ["a/0", "a/1", "b/1"]
    assert again.classes == first.classes
    assert again.labels is not None
    assert again.labels.tolist() == [0, 0, 1]
    with h5py.File(path, "a") as file:
        file["c/0"] = as_row(jpeg(9))
    assert len(H5Source(path, labeled=True)) == 4


def test_an_index_beside_the_file_gives_names_and_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.h5", {"b": ["1"], "a": ["1", "0"]})
    with h5py.File(path, "a") as file:
        file["a/2"] = np.void(b"opaque")
    expected = H5Source(path, labeled=True)
    write_h5_index(path)
    monkeypatch.setattr("sslight.data.sources.h5.index._listing", lambda path: pytest.fail("the file was listed"))
    source = H5Source(path, labeled=True)
    assert [source.name(index) for index in range(4)] == ["a/0", "a/1", "a/2", "b/1"]
    monkeypatch.setattr(
        "sslight.data.sources.h5.source.place_of", lambda file, name: pytest.fail(name) if name != "a/2" else None
    )
    assert [source.read(index) for index in range(4)] == [jpeg(2), jpeg(1), b"opaque", jpeg(0)]
    assert source.classes == expected.classes
    assert source.labels is not None
    assert source.labels.tolist() == [0, 0, 0, 1]


def test_an_index_that_does_not_fit_its_file_is_not_used(tmp_path: Path) -> None:
    path = write(tmp_path / "t.h5", {"a": ["0", "1"], "b": ["2"]})
    write_h5_index(path)
    right = read_table(h5_index_path(path))
    assert right is not None
    arrays = right.arrays
    wrong = [
        Table(right.head, arrays | {"offsets": arrays["offsets"] + 1}),
        Table(right.head, arrays | {"offsets": arrays["offsets"] + 2**40}),
        Table(right.head, arrays | {"offsets": -arrays["offsets"]}),
        Table(right.head, arrays | {"sizes": arrays["sizes"] + 1}),
        Table(right.head, arrays | {"sizes": -arrays["sizes"]}),
        Table(right.head, arrays | {"sizes": arrays["sizes"][:2]}),
        Table(right.head | {"classes": {"a": 3}}, NameTable(["x/1", "x/2", "x/3"]).arrays() | places(arrays)),
        Table(right.head | {"classes": {"a": 2}}, arrays),
        Table(right.head | {"classes": {"a": 1, "b": 2}}, arrays),
        Table(right.head | {"classes": {"a": 3, "b": 0}}, arrays),
        Table(right.head | {"classes": 5}, arrays),
        Table(right.head | {"num_bytes": 9}, arrays),
    ]
    for table in wrong:
        write_table(h5_index_path(path), table)
        source = H5Source(path, labeled=True)
        assert [source.read(index) for index in range(3)] == [jpeg(n) for n in range(3)]
        assert [source.name(index) for index in range(3)] == ["a/0", "a/1", "b/2"]
        assert source.classes == ("a", "b")


def places(arrays: dict[str, npt.NDArray[np.int64]]) -> dict[str, npt.NDArray[np.int64]]:
    return {"offsets": arrays["offsets"], "sizes": arrays["sizes"]}


def test_forked_processes_read_beside_a_parent_that_has_read(tmp_path: Path) -> None:
    source = H5Source(write(tmp_path / "t.h5", {"a": [f"{n:02d}" for n in range(20)]}), labeled=False)
    expected = [source.read(index) for index in range(20)]
    context = multiprocessing.get_context("fork")
    results = context.Queue()

    def read_all() -> None:
        results.put([source.read(index) for _ in range(10) for index in range(20)])

    children = [context.Process(target=read_all) for _ in range(2)]
    for child in children:
        child.start()
    assert [source.read(index) for index in range(20)] == expected
    assert [results.get(timeout=30) for _ in children] == [expected * 10] * 2
    for child in children:
        child.join()


def test_links_are_refused(tmp_path: Path) -> None:
    secret = write(tmp_path / "other.h5", {"a": ["0"]})
    for number, link in enumerate((h5py.ExternalLink(str(secret), "/a/0"), h5py.SoftLink("/a/0"))):
        path = write(tmp_path / f"{number}.h5", {"a": ["0"]})
        with h5py.File(path, "a") as file:
            file["a/1"] = link
        with pytest.raises(ValueError, match="a/1 is a link, and links are not followed"):
            H5Source(path, labeled=False)


def test_datasets_that_keep_their_bytes_in_another_file_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(100))
    layout = h5py.VirtualLayout(shape=(10,), dtype=np.uint8)
    other = write(tmp_path / "other.h5", {"a": ["0"]})
    layout[:] = h5py.VirtualSource(other, "a/0", shape=(len(jpeg(0)),))[:10]
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_dataset("a/0", (10,), np.uint8, external=[(str(tmp_path / "secret"), 0, 10)])
        file.create_virtual_dataset("a/1", layout)
    source = H5Source(tmp_path / "t.h5", labeled=False)
    for index in range(2):
        with pytest.raises(UnreadableImage, match="keeps its bytes in another file"):
            source.read(index)


def test_datasets_that_are_no_encoded_bytes_are_unreadable(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["a/0"] = np.zeros((4, 4, 3), np.uint8)
        file["a/1"] = np.zeros(4, np.float32)
        file.create_dataset("a/2", (2**40,), np.uint8, chunks=(1024,))
        file.create_group("a/3")
    source = H5Source(tmp_path / "t.h5", labeled=False)
    reasons = ["is not encoded bytes", "is not encoded bytes", "claims 1,099,511,627,776 bytes", "not a dataset"]
    for index, reason in enumerate(reasons):
        with pytest.raises(UnreadableImage, match=reason):
            source.read(index)


def test_another_layout_is_refused_with_a_sentence(tmp_path: Path) -> None:
    cases = {
        "images": (np.zeros((2, 8, 8, 3), np.uint8), "images is outside any group; store one group of images"),
        "a/b/c": (as_row(jpeg()), "a/b/c is deeper than group/image"),
    }
    for number, (name, (value, sentence)) in enumerate(cases.items()):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file[name] = value
        with pytest.raises(ValueError, match=sentence):
            H5Source(tmp_path / f"{number}.h5", labeled=False)
    write(tmp_path / "empty.h5", {"a": []})
    with pytest.raises(ValueError, match="holds no images"):
        H5Source(tmp_path / "empty.h5", labeled=False)
