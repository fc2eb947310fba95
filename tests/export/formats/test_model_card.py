"""What model cards tell of the trainings before, and what they keep to themselves."""

import shutil
from pathlib import Path

import pytest
import yaml

import sslight
from sslight.export.task import ExportResult
from tests.export.exports import settings_for, write_backbone


def test_the_card_of_a_fine_tuned_classifier_tells_of_both_trainings(exported: ExportResult, tmp_path: Path) -> None:
    first = tmp_path / "secret-place" / "first"
    first.mkdir(parents=True)
    shutil.copy(exported.path.parent / "backbone.safetensors", first)
    (first / "config.yaml").write_text("method: dino\nepochs: 3\ndata:\n  train: [leaves]\n", encoding="utf-8")
    classifier = tmp_path / "classifier"
    sets = {"data.train": "synthetic:40", "data.val": "synthetic:20:val", "devices": "cpu", "logger": "none"}
    sslight.finetune(first, sets, epochs=2, batch_size=20, holdout=0.2, output=classifier)
    license = 'our own: no use #1 "yet"\n---\nno'
    overrides = settings_for(classifier, format="timm", license=license, **{"data.check": "synthetic:16:val"})
    (file,) = sslight.export_backbone(classifier, overrides).files
    card = (file.path / "README.md").read_text(encoding="utf-8")
    start, front, text = card.split("\n---\n")[0], *card.removeprefix("---\n").split("\n---\n")
    assert start.startswith("---\n")
    assert yaml.safe_load(front)["license"] == license
    assert "self-supervised-learning" in yaml.safe_load(front)["tags"]
    assert text.splitlines()[1].endswith(", fine-tuned with sslight for 10 classes")
    tuned, pretrained = text.index("Fine-tuning (classifier):"), text.index("Pre-training without labels (first):")
    assert tuned < text.index("| epochs | 2 |") < pretrained < text.index("| epochs | 3 |")
    assert tuned < text.index("| model | first |") < text.index("| chosen_epoch |") < pretrained
    assert text.index("- `data.train` of fine-tuning: synthetic:40") < text.index(
        "- `data.train` of pre-training: leaves"
    )
    assert "| finetune | synthetic:20:val |" in text
    assert "secret-place" not in card


def test_a_card_names_no_training_that_its_weights_did_not_have(exported: ExportResult, tmp_path: Path) -> None:
    shutil.copy(exported.path.parent / "backbone.safetensors", tmp_path)
    (file,) = sslight.export_backbone(tmp_path / "backbone.safetensors", settings_for(tmp_path, format="timm")).files
    card = (file.path / "README.md").read_text(encoding="utf-8")
    assert ", exported by sslight\n" in card
    assert "self-supervised-learning" not in card


def test_a_card_follows_folders_only_and_shows_no_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = "init_from: timm:resnet18\n"
    train = "data:\n  train: ['https://host/secret/{0..9}.tar?X-Signature=SECRET']\n"
    (tmp_path / "config.yaml").write_text(f"method: dino\nepochs: 3\n{named}{train}", encoding="utf-8")
    write_backbone(tmp_path / "backbone.safetensors")
    monkeypatch.chdir(tmp_path)
    (file,) = sslight.export_backbone("backbone.safetensors", settings_for(Path(), format="timm")).files
    card = (file.path / "README.md").read_text(encoding="utf-8")
    assert card.count(f"Pre-training without labels ({tmp_path.name}):") == card.count("Pre-training without") == 1
    assert "- `data.train` of pre-training: {0..9}.tar\n" in card
    assert "SECRET" not in card
