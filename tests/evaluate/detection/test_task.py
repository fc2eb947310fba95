from pathlib import Path

import pytest
import torch

from sslight.backbones import build_backbone, save_backbone
from sslight.config import DetectSettings, build
from sslight.evaluate.detection.pyramid import BackboneWithPyramid
from sslight.evaluate.detection.task import DetectionTask, prepare_detection
from tests.data.detection_files import coco_content, coco_folder, write_coco


@pytest.fixture
def export(tmp_path: Path) -> Path:
    torch.manual_seed(7)
    path = tmp_path / "runs" / "backbone.safetensors"
    path.parent.mkdir()
    save_backbone(
        build_backbone("test_resnet"),
        path,
        name="test_resnet",
        image_size=64,
        patch_size=None,
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
    )
    return path


def task(export: Path, data: Path, **changes: object) -> DetectionTask:
    return prepare_detection(build(DetectSettings, {"data": str(data), **changes}, model=str(export)))


def test_the_detector_starts_from_the_exported_weights_and_their_normalisation(export: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = build_backbone("test_resnet").state_dict()
    prepared = task(export, coco_folder(tmp_path / "coco"))
    pyramid = prepared.detector.backbone
    assert isinstance(pyramid, BackboneWithPyramid)
    found = pyramid.backbone.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert prepared.detector.training
    image = torch.full((3, 32, 64), 0.5)
    padded = prepared.detector.transform([image])[0].tensors[0]  # type: ignore[operator]
    torch.testing.assert_close(padded[:, 5, 5], torch.tensor([0.4 / 0.4, 0.3 / 0.5, 0.2 / 0.6]))


def test_the_folder_is_beside_the_checkpoint_and_named_after_what_is_measured(export: Path, tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "coco")
    folder = task(export, data).folder
    assert folder.parent == export.parent / "evaluation"
    assert folder.name.startswith("detect-")
    assert task(export, data, resume=True, log_every=1, sample=4, devices="cpu").folder == folder
    assert task(export, data, seed=1).folder != folder
    assert task(export, data, output=str(tmp_path / "mine")).folder == tmp_path / "mine"


def test_images_without_objects_are_counted_in_training_and_kept_in_measuring(export: Path, tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "coco")
    for split in ("train2017", "val2017"):
        content = coco_content(split)
        content["annotations"] = [each for each in content["annotations"] if each["image_id"] not in (100, 103)]
        for each in content["annotations"]:
            each["iscrowd"] = int(each["image_id"] == 104)
        write_coco(data, content, split)
    prepared = task(export, data)
    assert (len(prepared.train), prepared.num_without_objects, len(prepared.val)) == (3, 3, 6)


def test_unreadable_images_are_refused_before_anything_is_trained(export: Path, tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "coco")
    for file in (data / "val2017").iterdir():
        file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"no readable image among the 6 tried: .* check that data=.*coco points to"):
        task(export, data)
