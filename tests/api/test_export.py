"""What an export is of: the checkpoint, or the backbone that a classifier brings."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

import sslight
from sslight.api.finetune_run import FinetuneResult
from sslight.backbones import build_backbone
from tests.export.exports import write_backbone


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    """A classifier that was trained from the file ``first.safetensors`` beside its folder."""
    folder = tmp_path_factory.mktemp("tuned")
    write_backbone(folder / "first.safetensors")
    sets = {"data.train": "synthetic:40", "data.val": "synthetic:20:val", "devices": "cpu", "logger": "none"}
    result = sslight.finetune(
        folder / "first.safetensors", sets, epochs=1, batch_size=20, holdout=0, workers=0, output=folder / "classifier"
    )
    assert result is not None
    return result


def exported(tuned: FinetuneResult, model: str | Path, folder: Path, **more: Any) -> dict[str, Any]:
    given = {"classifier": tuned.output, "output": folder / "out", "runs": 3, "format": "safetensors", **more}
    return sslight.export_backbone(model, {"data.check": "synthetic:8:val", "data.num_check": 8}, **given).content


@pytest.mark.parametrize("name", ["first.safetensors", "classifier", "classifier/backbone.safetensors"])
def test_a_fine_tuned_classifier_is_exported_with_its_backbone(
    name: str, tuned: FinetuneResult, tmp_path: Path
) -> None:
    content = exported(tuned, tuned.output.parent / name, tmp_path)
    assert content["checkpoint"]["path"] == str(tuned.classifier)


def test_a_checkpoint_that_a_classifier_was_not_trained_from_is_refused(tuned: FinetuneResult, tmp_path: Path) -> None:
    write_backbone(tmp_path / "mobile.safetensors", "mobilenet_v2")
    write_backbone(tmp_path / "larger.safetensors", size=64)  # its batch norms saw other images
    remedy = f"give the classifier alone, whose backbone is what is exported: sslight export {tuned.output}."
    for name, sentence in (
        ("none.safetensors", f"there is no file {tmp_path / 'none.safetensors'}"),
        ("mobile.safetensors", f"is a mobilenetv2_100, and classifier={tuned.output} of a test_resnet: {remedy}"),
        (
            "larger.safetensors",
            f"was trained from other weights than those of {tmp_path / 'larger.safetensors'}: {remedy}",
        ),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            exported(tuned, tmp_path / name, tmp_path)
    assert not (tmp_path / "out").exists()


def test_weights_that_do_not_say_their_network_are_refused_with_a_remedy(tuned: FinetuneResult, tmp_path: Path) -> None:
    save_file(build_backbone("test_resnet").state_dict(), tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match=rf"plain\.safetensors.*or give the classifier alone.*{tuned.output}\."):
        exported(tuned, tmp_path / "plain.safetensors", tmp_path)


def test_results_of_another_program_beside_a_classifier_are_no_obstacle(tuned: FinetuneResult, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tuned.output, moved)
    (moved / "results.json").write_text("{}", encoding="utf-8")
    content = exported(tuned, tuned.output.parent / "first.safetensors", tmp_path, classifier=moved)
    assert content["checkpoint"]["path"] == str(moved / tuned.classifier.name)


@pytest.mark.parametrize("name", ["first.safetensors", "classifier"])
def test_a_fine_tuned_classifier_has_no_teacher(name: str, tuned: FinetuneResult, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"network=teacher: .*classifier holds one network: leave network out"):
        exported(tuned, tuned.output.parent / name, tmp_path, network="teacher")
