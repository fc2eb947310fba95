"""Labels of the images of an export, from folders and tables: what they measure, and which are refused."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sslight
from sslight.api.export import export_with
from sslight.api.finetune_run import FinetuneResult
from sslight.config import ExportSettings, build
from sslight.export import files as export_files
from sslight.export.formats import weights_file
from tests.api.fine_tuned import fine_tuned
from tests.export.exports import agreed, settings_for, write_backbone

NAMES = ("lying", "standing", "odd")


def table(path: Path, heading: str, rows: dict[str, str]) -> Path:
    path.write_text("\n".join([heading, *(f"{name},{values}" for name, values in rows.items())]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def of_classes(tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    return fine_tuned(tmp_path_factory.mktemp("classes"), lr=0.003)


@pytest.fixture(scope="module")
def of_labels(of_classes: FinetuneResult) -> FinetuneResult:
    """Three labels of which the third holds for every second image."""
    folder = of_classes.output.parent
    lying = {str(path): path.parent.name == "lying" for path in sorted(folder.glob("*/*/*.png"))}
    rows = {name: f"{int(is_so)},{int(not is_so)},{int(name[-5]) % 2}" for name, is_so in lying.items()}
    labels = str(table(folder / "labels.csv", f"name,{','.join(NAMES)}", rows))
    sets = {"train": folder / "train", "val": folder / "val", "labels": labels, "val_labels": labels}
    table(folder / "turned.csv", "name,odd,lying,standing", {n: f"{v[4:]},{v[:3]}" for n, v in rows.items()})
    table(folder / "two.csv", "name,lying,standing", {name: values[:3] for name, values in rows.items()})
    lists = {
        n: ";".join(name for name, has in zip(NAMES, v.split(","), strict=True) if int(has)) for n, v in rows.items()
    }
    table(folder / "lists.csv", "name,labels", lists)
    table(folder / "unknown.csv", "name,labels", {name: f"{has};striped" for name, has in lists.items()})
    table(folder / "classes.csv", "name,label", {name: Path(name).parent.name for name in rows})
    table(folder / "others.csv", "name,label", {name: f"{Path(name).parent.name}!" for name in rows})
    return fine_tuned(folder, data=sets, lr=0.003, output=folder / "tags")


def test_a_table_of_classes_measures_the_accuracy_before_and_after(
    of_classes: FinetuneResult, of_labels: FinetuneResult, tmp_path: Path
) -> None:
    folder = of_labels.output.parent
    data = {"data.check": str(folder / "val"), "data.labels": str(folder / "classes.csv"), "tolerance.accuracy": 1.0}
    (file,) = sslight.export_backbone(of_classes.output, settings_for(tmp_path, **data)).files
    found = agreed(file)
    assert found.accuracy_before == pytest.approx(of_classes.content["accuracy"]["top1"])
    assert found.accuracy is not None
    assert (found.accuracy.value, found.num_labeled) == (0.0, 40)


@pytest.mark.parametrize("name", ["labels.csv", "turned.csv", "lists.csv"])
def test_a_table_of_overlapping_labels_measures_their_precision_before_and_after(
    name: str, of_labels: FinetuneResult, tmp_path: Path
) -> None:
    folder = of_labels.output.parent
    data = {"data.check": str(folder / "val"), "data.labels": str(folder / name), "tolerance.accuracy": 1.0}
    result = sslight.export_backbone(of_labels.output, settings_for(tmp_path, **data))
    found = agreed(result.files[0])
    assert found.accuracy_before == pytest.approx(of_labels.content["accuracy"]["map"])
    assert found.accuracy is not None
    assert (found.accuracy.value, found.accuracy.low, found.accuracy.high, found.num_labeled) == (0.0, 0.0, 0.0, 40)
    assert result.content["check"]["classes"] == list(NAMES)


def test_a_table_of_one_label_an_image_is_read_by_the_labels_of_its_classifier(
    of_labels: FinetuneResult, tmp_path: Path
) -> None:
    folder = of_labels.output.parent
    data = {"data.check": str(folder / "val"), "data.labels": str(folder / "classes.csv")}
    result = sslight.export_backbone(of_labels.output, settings_for(tmp_path, **data))
    assert result.content["check"]["classes"] == list(NAMES)
    assert agreed(result.files[0]).num_labeled == 40


def test_what_the_accuracy_leaves_out_is_said_and_kept(of_labels: FinetuneResult, tmp_path: Path) -> None:
    folder = of_labels.output.parent
    check = tmp_path / "check"
    shutil.copytree(folder / "val", check)
    names = sorted(path.relative_to(check).as_posix() for path in check.rglob("*.png"))
    whole = (check / names[1]).read_bytes()
    (check / names[1]).write_bytes(whole[: len(whole) // 2])
    rows = {name: Path(name).parent.name for name in names} | {names[0]: "horse", "gone.png": "lying"}
    path = table(tmp_path / "classes.csv", "name,label", rows)
    data = {"data.check": str(check), "data.labels": str(path), "data.max_bad_share": 0.5}
    lines: list[str] = []
    settings = build(ExportSettings, settings_for(tmp_path, **data), model=str(folder / "run"))
    result = export_with(settings, say=lines.append)
    assert result.content["notes"] == [
        "1 of the 40 images of data.check left out as unreadable.",
        f"1 of the 3 labels in {path} is none of the classifier's, so their images count for no accuracy (first: "
        "horse).",
        f"1 of 41 labeled names in {path} has no image in data.check (first: gone.png; a name there is {names[0]}).",
    ]
    assert lines[1:4] == result.content["notes"]
    assert agreed(result.files[0]).num_labeled == 38


def test_unreadable_images_of_the_calibration_are_said_and_kept(of_classes: FinetuneResult, tmp_path: Path) -> None:
    folder, calibration = of_classes.output.parent, tmp_path / "calibration"
    shutil.copytree(folder / "train", calibration)
    (calibration / "lying" / "003.png").write_bytes(b"")
    data = {"data.check": str(folder / "val"), "data.calibration": str(calibration), "data.max_bad_share": 0.5}
    forms = {"format": ["onnx-int8"], "int8.method": "minmax", "tolerance.same_class": 0.0}
    lines: list[str] = []
    settings = settings_for(tmp_path, **data, **forms, **{"tolerance.accuracy": 100.0})
    result = export_with(build(ExportSettings, settings, model=str(of_classes.output)), say=lines.append)
    told = "1 of the 80 images of data.calibration left out as unreadable."
    assert result.content["notes"] == [told]
    assert lines.count(told) == 1


def test_labels_that_look_like_several_are_classes_without_a_classifier_and_that_is_said(tmp_path: Path) -> None:
    write_backbone(tmp_path / "backbone.safetensors")
    for number in range(3):
        Image.new("RGB", (36, 36), (80 * number, 0, 0)).save(tmp_path / f"{number}.png")
    path = table(tmp_path / "labels.csv", "name,label", {"0.png": "a;b", "1.png": "a", "2.png": "a;b"})
    settings = settings_for(tmp_path, **{"data.check": str(tmp_path), "data.labels": str(path), "tolerance.knn": 0.0})
    result = sslight.export_backbone(tmp_path / "backbone.safetensors", settings)
    assert result.content["notes"] == [
        f"1 of the 2 labels look like several in {path} (first: a;b); each counts as a class."
    ]


@pytest.mark.parametrize(("limit", "refused"), [(None, True), (1.0, True), (100.0, False)])
def test_a_file_that_loses_precision_beyond_chance_is_refused(
    limit: float | None, refused: bool, of_labels: FinetuneResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = weights_file.write_weights

    def exchanged(exportable: Any, path: Path, **keywords: Any) -> None:
        order = torch.tensor([1, 0, 2])
        layer = exportable.classifier
        other = replace(layer, weight=layer.weight[order], bias=layer.bias[order])
        honest(replace(exportable, classifier=other), path, **keywords)

    monkeypatch.setattr(export_files, "write_weights", exchanged)
    folder = of_labels.output.parent
    more = {} if limit is None else {"tolerance.accuracy": limit}
    data = {"data.check": str(folder / "val"), "data.labels": str(folder / "labels.csv"), "tolerance.same_class": 0.0}
    settings = settings_for(tmp_path, **data, **more)
    if refused:
        with pytest.raises(ValueError, match=r"of mean average precision on the 40 images with labels, more than 1;"):
            sslight.export_backbone(of_labels.output, settings)
    else:
        change = agreed(sslight.export_backbone(of_labels.output, settings).files[0]).accuracy
        assert change is not None
        assert change.value < -10
        assert change.high < 0


@pytest.mark.parametrize(
    ("kind", "changes", "sentence"),
    [
        ("tags", {"data.labels": "two.csv"}, "two.csv and the classifier differ in the labels odd: use the same."),
        ("tags", {"data.labels": "others.csv"}, "and the classifier differ in the labels lying!, standing!: use the"),
        (
            "run",
            {"data.labels": "lists.csv"},
            "lists.csv: 2 of the 4 labels look like several (first: lying;odd), but the classifier gives one class an",
        ),
        ("tags", {"data.labels": "unknown.csv"}, "and the classifier differ in the labels striped: use the same."),
        (
            "tags",
            {"tolerance.accuracy": 1.0},
            "no labels of the classifier's; give a table of them as data.labels with a",
        ),
        ("run", {"data.labels": "labels.csv"}, "column for each label, but the classifier gives one class an image"),
        ("run", {"data.labels": "others.csv"}, "none of the classifier's classes: it has lying!, standing!, the class"),
        ("run", {"data.check": "synthetic:8", "tolerance.accuracy": 1.0}, "or class folders of their names."),
        ("run", {"data.labels_column": "label"}, "data.labels_column=label would have no effect: no table of labels"),
        ("backbone", {"data.labels": "labels.csv"}, "has a column for each label, but there is no classifier: give a"),
    ],
)
def test_labels_that_do_not_fit_the_classifier_are_refused_before_any_work(
    kind: str, changes: dict[str, Any], sentence: str, of_labels: FinetuneResult, tmp_path: Path
) -> None:
    folder = of_labels.output.parent
    if kind == "backbone":
        write_backbone(tmp_path / "backbone.safetensors")
    model = tmp_path / "backbone.safetensors" if kind == "backbone" else folder / kind
    if "data.labels" in changes:
        changes = changes | {"data.labels": str(folder / changes["data.labels"])}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=re.escape(sentence)):
        sslight.export_backbone(model, settings_for(tmp_path, **{"data.check": str(folder / "val"), **changes}))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_table_of_a_backbone_gives_the_classes_of_its_neighbors(of_labels: FinetuneResult, tmp_path: Path) -> None:
    folder = of_labels.output.parent
    write_backbone(tmp_path / "backbone.safetensors")
    data = {"data.check": str(folder / "val"), "data.labels": str(folder / "classes.csv")}
    result = sslight.export_backbone(tmp_path / "backbone.safetensors", settings_for(tmp_path, **data))
    assert result.content["check"]["classes"] == ["lying", "standing"]
    assert agreed(result.files[0]).same_knn_class == 1.0
    assert np.isfinite(agreed(result.files[0]).knn_top1_before or np.nan)
