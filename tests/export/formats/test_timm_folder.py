"""Folders that timm opens and hubs take."""

import json
import shutil
from pathlib import Path

import timm
import yaml

import sslight
from sslight.export.task import ExportResult
from tests.export.exports import MEAN, STD, agreed, settings_for


def test_a_timm_folder_has_what_a_hub_asks_for_and_opens_as_it_is(exported: ExportResult, tmp_path: Path) -> None:
    run = tmp_path / "secret-place" / "first"
    run.mkdir(parents=True)
    shutil.copy(exported.path.parent / "backbone.safetensors", run)
    (run / "config.yaml").write_text(
        "method: dino\nepochs: 3\ndata:\n  train: [/secret-place/leaves]\n", encoding="utf-8"
    )
    measured = json.loads((exported.path.parent / "linear" / "results.json").read_text(encoding="utf-8"))
    ours = measured["checkpoint"]["weights_sha256"]
    for name, weights in (("ours", ours), ("of other weights", "0"), ("semi", ours)):
        content = {**measured, "protocol": name, "checkpoint": {"weights_sha256": weights}}
        (run / "evaluation" / name).mkdir(parents=True)
        (run / "evaluation" / name / "results.json").write_text(json.dumps(content), encoding="utf-8")
    overrides = settings_for(run, format="timm", classifier=str(exported.path.parent / "linear"), license="mit")
    (file,) = sslight.export_backbone(run / "backbone.safetensors", overrides).files
    assert agreed(file).largest_difference < 1e-4 * agreed(file).largest_output
    assert {path.name for path in file.path.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    model = timm.create_model(f"local-dir:{file.path}", pretrained=True)
    assert (model.num_classes, len(model.pretrained_cfg["label_names"])) == (10, 10)
    data = timm.data.resolve_model_data_config(model)
    assert tuple([*data[key]] for key in ("input_size", "mean", "std")) == ([3, 32, 32], [*MEAN], [*STD])
    card = (file.path / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---")[1])
    assert (front["license"], front["library_name"]) == ("mit", "timm")
    assert "| epochs | 3 |" in card
    assert "- `data.train` of pre-training: leaves" in card
    assert "pre-trained with sslight, with a linear classifier of 10 classes" in card
    assert f"| ours | synthetic:30:val | {measured['transform']['image_size']} | 30 |" in card
    assert "of other weights" not in card
    assert "| semi |" not in card  # of another classifier
    for size, resize in ((64, 93), (96, 110), (224, 256)):
        shorter = timm.data.create_transform((3, size, size), crop_pct=size / (resize + 1e-6)).transforms[0].size
        assert shorter in (resize, (resize, resize))
    assert "secret-place" not in card
