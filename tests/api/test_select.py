"""From unlabelled images to a table that waits for labels, and on to a classifier."""

import csv
import os
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sslight
from sslight.api import file_pass
from sslight.api import select as api
from sslight.backbones import build_backbone, save_backbone
from sslight.cli.commands.select import select as command
from sslight.finetuning.choice import choose_images
from tests.api.fine_tuned import TINY, draw_stripes


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "backbone.safetensors"
    size = {"image_size": 32, "patch_size": None, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    save_backbone(build_backbone("test_resnet"), path, name="test_resnet", **size)  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images of stripes; one of them a second time, a shade darker."""
    root = draw_stripes(tmp_path_factory.mktemp("images") / "pool", each=20, seed=0)
    with Image.open(root / "lying" / "003.png") as image:
        Image.fromarray((np.asarray(image) * 0.99).astype(np.uint8)).save(root / "standing" / "copy.png")
    return root


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_the_choice_by_the_features_in_its_order(backbone: Path, pool: Path, tmp_path: Path) -> None:
    found = sslight.select(pool, backbone, num=10, output=tmp_path / "t.csv", near_duplicate=0.999)
    features = sslight.embed(pool, backbone)
    expected = choose_images(features.features, 10, near_duplicate=0.999)
    assert found.names == tuple(features.names[row] for row in expected.rows)
    assert found.num_images == 41
    assert sum(found.represents) == 41
    rows = rows_of(tmp_path / "t.csv")
    assert [*rows[0]] == ["name", "label", "order", "represents"]
    assert [row["name"] for row in rows] == [*found.names]
    assert [row["order"] for row in rows] == [str(order) for order in range(1, 11)]
    assert {row["label"] for row in rows} == {""}
    assert [int(row["represents"]) for row in rows] == [*found.represents]
    assert {path.name for path in tmp_path.iterdir()} == {"t.csv", "t.html"}
    few = sslight.select(pool, backbone, num=4, near_duplicate=0.999)
    assert few.names == found.names[:4]
    assert few.page is None


def test_of_two_near_duplicates_one_is_chosen_and_the_page_shows_the_other(
    backbone: Path, pool: Path, tmp_path: Path
) -> None:
    features = sslight.embed(pool, backbone)
    pair = {"lying/003.png", "standing/copy.png"}
    unit = torch.nn.functional.normalize(features.features - features.features.mean(0), dim=1)
    one, other = (features.names.index(name) for name in pair)
    cosine = float(unit[one] @ unit[other])
    found = sslight.select(pool, backbone, num=30, near_duplicate=cosine - 1e-4, output=tmp_path / "t.csv")
    groups = [{name, *others} for name, others in zip(found.names, found.duplicates, strict=True) if others]
    assert any(pair <= group for group in groups)
    assert len(pair & {*found.names}) <= 1
    assert found.page is not None
    text = found.page.read_text(encoding="utf-8")
    assert "<h1>30 of 41 images to label</h1>" in text
    shown = {*re.findall(r'title="([^"]+\.png)"', text)}
    assert shown == {*found.names}.union(*found.duplicates)
    assert "http" not in text.replace("http://www.w3.org", "")


def test_a_filled_table_trains_a_classifier_and_keeps_a_second_round_from_the_same_images(
    backbone: Path, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "to_label.csv"
    first = sslight.select(pool, backbone, num=24, output=table, near_duplicate=1.0)
    rows = rows_of(table)
    for row in rows[:20]:  # the last ones are not labelled yet
        row["label"] = row["name"].partition("/")[0]
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    val = draw_stripes(tmp_path / "val", each=5, seed=1)
    data = {"train": str(pool), "labels": str(table), "subset": "labeled", "val": str(val)}
    result = sslight.finetune(backbone, {**TINY, "init": "weights", "data": data, "output": tmp_path / "run"})
    assert result is not None
    assert result.content["details"]["train_images"] == Counter(row["label"] for row in rows[:20])
    with pytest.raises(ValueError, match=r"^data\.subset=labeled needs a table of labels: set data\.labels\."):
        sslight.finetune(backbone, {**TINY, "data": data | {"labels": None}, "output": tmp_path / "other"})
    second = sslight.select(pool, backbone, num=10, labeled=table, near_duplicate=1.0)
    assert not {*second.names} & {row["name"] for row in rows[:20]}
    both = sslight.select(pool, backbone, num=30, near_duplicate=1.0)
    assert first.names[:20] == both.names[:20]
    assert second.names == both.names[20:]
    table.write_text(table.read_text(encoding="utf-8").replace("lying/", "Lying/"), encoding="utf-8")
    capsys.readouterr()
    third = sslight.select(pool, backbone, num=10, labeled=table, near_duplicate=1.0, output=tmp_path / "third.csv")
    lost = [row["name"].replace("lying/", "Lying/") for row in rows[:20] if row["label"] == "lying"]
    assert list(third.unmatched) == lost
    said = f"labeled={table}: {len(lost)} of 20 names have no image (first: {lost[0]}; a name there is lying/000.png)"
    assert said in capsys.readouterr().err


def test_a_name_that_is_no_utf8_comes_back_from_the_table(backbone: Path, pool: Path, tmp_path: Path) -> None:
    images = Path(shutil.copytree(pool / "lying", tmp_path / "images"))
    (first,) = sslight.select(images, backbone, num=1, near_duplicate=1.0).names
    odd = os.fsdecode(b"caf\xe9.png")
    (images / first).rename(images / odd)
    table = tmp_path / "t.csv"
    assert odd in sslight.select(images, backbone, num=5, output=table, near_duplicate=1.0).names
    assert r"caf\xe9.png" in {row["name"] for row in rows_of(table)}
    assert r"caf\xe9.png" in table.with_suffix(".html").read_text(encoding="utf-8")
    table.write_text(table.read_text(encoding="utf-8").replace(",,", ",x,"), encoding="utf-8")
    again = sslight.select(images, backbone, num=14, labeled=table, near_duplicate=1.0)
    assert again.unmatched == ()
    assert odd not in again.names


def test_an_interrupted_choice_computes_no_feature_twice(
    backbone: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(api, "_write_table", full)
        with pytest.raises(OSError, match="No space left"):
            sslight.select(pool, backbone, num=5, output=tmp_path / "t.csv")
    (tmp_path / "t.html").unlink()
    monkeypatch.setattr(file_pass.FilePass, "_part", full)  # nothing is left to compute
    sslight.select(pool, backbone, num=5, output=tmp_path / "t.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"t.csv", "t.html"}


def test_unreadable_images_are_listed_and_never_chosen(backbone: Path, tmp_path: Path) -> None:
    folder = draw_stripes(tmp_path / "images", each=4, seed=0) / "lying"
    (folder / "001.png").write_bytes(b"no picture")
    found = sslight.select(folder, backbone, num=3, output=tmp_path / "t.csv", near_duplicate=1.0)
    assert len(found.names) == found.num_images == 3
    assert "001.png" not in found.names
    assert "001.png" in (tmp_path / "t.csv.bad_images.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{pool}", "output={tmp}/t.csv", "num=41"], "num=41 cannot be chosen from 41 images: choose 1 to 40"),
        (["{pool}", "output={tmp}/t.npz"], "must end in .csv; `sslight config select.output`"),
        (["{pool}"], "output is not set: give one, such as output=to_label.csv"),
        (["output={tmp}/t.csv"], "no IMAGES given: write `sslight select MODEL IMAGES"),
        (["{pool}", "output={tmp}/t.csv", "num=5", "labeled={tmp}/no.csv"], "labeled={tmp}/no.csv cannot be read"),
        (
            ["{pool}", "output={tmp}/t.csv", "num=5", "labeled={tmp}/other.csv"],
            "gives a label to none of the 41 images",
        ),
        (["{pool}", "output={tmp}/t.csv", "num=5", "near_duplicate=0"], "near_duplicate=0"),
        (["{pool}", "output={tmp}/other.csv", "num=5"], "other.csv exists: name another file, or remove it"),
    ],
)
def test_a_wrong_input_ends_in_a_sentence(
    words: list[str], sentence: str, backbone: Path, pool: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.csv").write_text("name,label\nlying/000.png,\nnowhere.png,lying\n", encoding="utf-8")

    def filled(text: str) -> str:
        return text.replace("{pool}", str(pool)).replace("{tmp}", str(tmp_path))

    with pytest.raises(ValueError, match=re.escape(filled(sentence))):
        command([str(backbone), *map(filled, words)])
    assert [path.name for path in tmp_path.iterdir()] == ["other.csv"]


def test_another_file_in_the_place_of_a_listing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.csv.bad_images.csv").write_text("my own notes")
    with pytest.raises(ValueError, match=r"a\.csv\.bad_images\.csv, which exists: name another file"):
        sslight.select("synthetic:8", "timm:test_resnet", num=2, output=tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"x\.html must end in \.csv"):
        sslight.select("synthetic:8", "timm:test_resnet", num=2, output=str(tmp_path / "x.html"))
