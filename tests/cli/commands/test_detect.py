"""Detection as typed: a whole tiny run, and what is refused before it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from PIL import Image

from sslight.cli.main import main
from sslight.config import DetectSettings, setting_keys
from tests.data.detection_files import coco_content, coco_folder, voc_object, write_coco, write_voc


def run(monkeypatch: pytest.MonkeyPatch, *words: str, code: int = 0) -> None:
    monkeypatch.setattr(sys, "argv", ["sslight", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code or 0) == code


def words(data: Path, output: Path, /, **changes: object) -> list[str]:
    settings: dict[str, object] = {
        "data": data,
        "output": output,
        "steps": 2,
        "batch_size": 2,
        "train_sizes": "[48]",
        "test_size": 48,
        "max_size": 80,
        "proposals": 8,
        "devices": "cpu",
        "logger": "none",
        **changes,
    }
    return ["evaluate", "detect", "timm:test_resnet", *(f"{key}={value}" for key, value in settings.items())]


def test_a_whole_run_leaves_results_predictions_weights_and_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = tmp_path / "coco", tmp_path / "run"
    for split in ("train2017", "val2017"):
        write_coco(data, coco_content(split, number=2), split)
    run(monkeypatch, *words(data, output, masks="true", sample=2))
    text = capsys.readouterr().out
    for part in (
        "Mask R-CNN, 2 steps",
        "2 training (train2017), 2 validation (val2017), 3 categories",
        "boxes",
        "masks",
    ):
        assert part in text
    content: dict[str, Any] = json.loads((output / "results.json").read_text())
    assert (content["format"], content["protocol"]) == ("sslight-evaluation", "detect")
    for kind in ("boxes", "masks"):
        figures = content[kind]
        assert figures.keys() == {"ap", "ap50", "ap75", "small", "medium", "large", "per_category"}
        assert 0 <= figures["ap"] <= figures["ap50"] <= 100
    assert content["details"]["total_steps"] == 2
    assert content["details"]["strides"] == [4, 8, 16, 32]
    assert isinstance(json.loads((output / "predictions.json").read_text()), list)
    with Image.open(output / "sample.png") as sheet:
        assert sheet.size == (960, 400)
    weights = safetensors.torch.load_file(output / "detector.safetensors")
    assert any(name.startswith("backbone.pyramid.") for name in weights)
    assert {path.name for path in output.iterdir()} == {
        ".lock",
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "bad_images.csv",
        "checkpoints",
        "results.json",
        "predictions.json",
        "detector.safetensors",
        "sample.png",
    }
    # Everything is there: nothing is trained again, and the figures stay.
    run(monkeypatch, *words(data, output, masks="true", sample=2, resume="true"), "--json")
    again = json.loads(capsys.readouterr().out)
    assert (again["boxes"], again["masks"]) == (content["boxes"], content["masks"])


def test_a_voc_folder_is_measured_by_the_voc_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for year, split in ((2007, "trainval"), (2012, "trainval"), (2007, "test")):
        write_voc(tmp_path / "voc", year, split, {f"{year}_{split}": voc_object("cat", (3, 3, 40, 40))})
    run(monkeypatch, *words(tmp_path / "voc", tmp_path / "run", steps=1), "--json")
    result = json.loads(capsys.readouterr().out)
    assert result["data"]["kind"] == "voc"
    assert result["data"]["train"] == {"split": "2007_trainval+2012_trainval", "num_images": 2}
    assert result["boxes"]["ap"] is None
    assert result["boxes"]["per_category"].keys() == {"cat"}


@pytest.mark.slow
def test_two_processes_train_a_detector_and_measure_every_image_once(tmp_path: Path) -> None:
    data = tmp_path / "coco"
    for split in ("train2017", "val2017"):
        write_coco(data, coco_content(split, number=3), split)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "sslight"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    typed = words(data, tmp_path / "run")
    found = []
    for command in ([*launcher, *typed], [sys.executable, "-m", "sslight", *typed, "resume=true"]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Faster R-CNN, 2 steps") == 1
        found.append(json.loads((tmp_path / "run" / "predictions.json").read_text()))
    assert {each["image_id"] for each in found[0]} == {100, 101, 102}
    assert found[0] == found[1]  # one process that measures the same detector again finds the same


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "absent"}, "data=absent does not exist: give the folder"),
        ({"val_split": "test2017"}, "val_split=test2017 is not in"),
        ({"train_sizes": "[100]"}, "train_sizes=100 is above max_size=80"),
        ({"steps": 10, "warmup_steps": 10}, "warmup_steps=10 is not shorter than the run of 10 steps"),
        ({"schedule": "2x"}, "schedule=2x would have no effect: steps gives the length"),
        ({"network": "teacher"}, "network=teacher would have no effect: a timm model is one network"),
        ({"batch_size": 7}, "batch_size=7 is more than the 6 images of train2017 that have objects"),
        ({"strides": "[12]"}, "must be powers of two"),
        ({"strides": "[64, 128]"}, "strides=[64, 128] does not fit the backbone test_resnet"),
        ({"maskes": "true"}, "maskes is not a setting: did you mean masks"),
        ({"data.train": "x"}, "data.train is not a setting"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence_before_anything_is_written(
    changes: dict[str, object],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed = words(coco_folder(tmp_path / "coco"), tmp_path / "run", **changes)
    run(monkeypatch, *typed, code=2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_wrong_annotations_and_unset_data_end_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "evaluate", "detect", "timm:test_resnet", code=2)
    assert "data is not set: give a COCO or Pascal VOC folder" in capsys.readouterr().err
    data = coco_folder(tmp_path / "coco")
    content = coco_content("val2017")
    content["annotations"] = []
    write_coco(data, content, "val2017")
    run(monkeypatch, *words(data, tmp_path / "run"), code=2)
    assert "val2017 has no object to train or evaluate on" in capsys.readouterr().err
    content = coco_content("train2017")
    content["annotations"][2]["segmentation"] = [[1, 2, 3, 4]]
    write_coco(data, content, "train2017")
    run(monkeypatch, *words(data, tmp_path / "run", masks="true"), code=2)
    assert "has 1 annotation whose segmentation has a polygon of fewer than three points (annotation 3)" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


def test_every_setting_of_detection_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "config", "detect", "--json")
    explained = json.loads(capsys.readouterr().out)
    assert [each["key"] for each in explained] == [f"detect.{key}" for key in setting_keys(DetectSettings)]
    run(monkeypatch, "config", "detect.train_sizes")
    assert "640 to 800" in capsys.readouterr().out
