import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sslight.data import UnreadableImage, ViewLoader, build_source, inspect_source, pack
from sslight.data.sources.parquet import ParquetSource
from sslight.views import MultiCrop
from tests.data.mutations import mutated
from tests.data.pictures import jpeg
from tests.data.test_hostile_files import outcome_of, read_images


def write(
    path: Path, rows: range, *, labels: list[Any] | None = None, names: list[str] | None = None, group: int = 4
) -> Path:
    """Rows as Hugging Face's datasets write them; row ``n`` is ``jpeg(n)``."""
    columns = {"image": [{"bytes": jpeg(n), "path": f"{n}.jpg"} for n in rows]}
    table = pa.table(columns | ({} if labels is None else {"label": labels}))
    if names is not None:
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(exist_ok=True, parents=True)
    pq.write_table(table, path, row_group_size=group)
    return path


def two_files(folder: Path) -> Path:
    for number, rows in enumerate((range(7), range(7, 10))):
        labels = [n % 2 for n in rows]
        write(folder / f"train-{number:05d}-of-00002.parquet", rows, labels=labels, names=["zebra", "ant"])
    return folder


def test_rows_of_all_files_are_images_with_the_names_and_classes_of_the_features(tmp_path: Path) -> None:
    folder = two_files(tmp_path)
    source = build_source([str(folder)], labeled=True)
    assert [source.read(index) for index in (9, 0, 6, 7, 3)] == [jpeg(n) for n in (9, 0, 6, 7, 3)]
    assert source.classes == ("ant", "zebra")
    assert source.labels is not None
    assert source.labels.tolist() == [1, 0] * 5
    assert source.name(8) == "train-00001-of-00002/00000001"
    assert source.locate(8) == f"{folder}/train-00001-of-00002.parquet:1"
    assert len(build_source([f"{folder}/train-{{00000..00001}}-of-00002.parquet"], labeled=False)) == 10
    with pytest.raises(IndexError):
        source.read(10)


@pytest.mark.parametrize(
    ("labels", "classes", "found"),
    [(["b", "a", "b"], ("a", "b"), [1, 0, 1]), ([2, 0, 1], ("0", "1", "2"), [2, 0, 1])],
)
def test_labels_may_be_words_or_bare_numbers(
    tmp_path: Path, labels: list[Any], classes: tuple[str, ...], found: list[int]
) -> None:
    source = build_source([str(write(tmp_path / "t.parquet", range(3), labels=labels))], labeled=True)
    assert source.classes == classes
    assert source.labels is not None
    assert source.labels.tolist() == found


def test_a_set_is_inspected_packed_and_trained_on(tmp_path: Path) -> None:
    source = build_source([str(two_files(tmp_path / "set"))], labeled=True)
    assert inspect_source(source, workers=2).formats == {"JPEG": 10}
    pack(source, tmp_path / "out", format="tar", workers=2)
    packed = build_source([str(tmp_path / "out")], labeled=True)
    assert [packed.read(index) for index in range(10)] == [source.read(index) for index in range(10)]
    assert packed.classes == source.classes
    np.testing.assert_array_equal(packed.labels, source.labels)
    loader = ViewLoader(source, MultiCrop(num_global=2, num_local=0, global_size=8), batch_size=5, seed=0, workers=2)
    assert sorted(index for batch in loader.epoch(0) for index in batch.indices.tolist()) == list(range(10))
    loader.close()


def test_what_gives_no_images_or_labels_is_said(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.parquet", range(3))
    missing = write(tmp_path / "missing.parquet", range(3), labels=[0, -1, None])
    beyond = write(tmp_path / "beyond.parquet", range(3), labels=[0, 1, 5], names=["a", "b"])
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "text.parquet")
    (tmp_path / "words.parquet").write_bytes(b"words")
    for path, labeled, sentence in (
        (plain, True, "has no column label, so it has no labels"),
        (missing, True, "missing.parquet:1 is one of 2 of 3 rows without a label"),
        (beyond, True, "has the label 5, but only 2 class names"),
        (tmp_path / "text.parquet", False, "needs one column image of {bytes, path}, and has none"),
        (tmp_path / "words.parquet", False, "is not an intact Parquet file"),
    ):
        with pytest.raises(ValueError, match=sentence):
            build_source([str(path)], labeled=labeled)
    write(tmp_path / "splits" / "train-00000-of-00001.parquet", range(2))
    write(tmp_path / "splits" / "test-00000-of-00001.parquet", range(2))
    with pytest.raises(ValueError, match=r"holds the Parquet files of test, train; give one of them"):
        build_source([str(tmp_path / "splits")], labeled=False)


def test_a_row_without_bytes_is_unreadable_and_its_path_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    rows = [{"bytes": None, "path": str(tmp_path / "secret.jpg")}, {"bytes": jpeg(1), "path": None}]
    pq.write_table(pa.table({"image": rows}), tmp_path / "t.parquet")
    source = ParquetSource([tmp_path / "t.parquet"], labeled=False)
    with pytest.raises(UnreadableImage, match="has no bytes, at most a path, and paths are not followed"):
        source.read(0)
    assert source.read(1) == jpeg(1)


def test_large_row_groups_are_for_packing_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.parquet", range(9), group=9)
    monkeypatch.setattr("sslight.data.sources.build.LARGEST_GROUP", 1000)
    with pytest.raises(ValueError, match=r"row groups of .* MB, .*; pack it first: sslight data pack"):
        build_source([str(path)], labeled=False)
    assert len(build_source([str(path)], labeled=False, in_order=True)) == 9


def test_without_pyarrow_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.parquet", range(1))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"and pyarrow is not installed: pip install pyarrow$"):
        build_source([str(path)], labeled=False)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_mutated_parquet_files_are_read_or_refused(tmp_path: Path) -> None:
    original = write(tmp_path / "o.parquet", range(6), labels=[0, 1] * 3, names=["a", "b"]).read_bytes()
    found = set()
    for seed in range(int(os.environ.get("SSLIGHT_MUTATIONS", "12"))):
        path = tmp_path / "mutated.parquet"
        path.write_bytes(mutated(original, seed))
        found.add(outcome_of(read_images, path))
    assert found <= {"read", "read in part", "refused"}
    assert "refused" in found
