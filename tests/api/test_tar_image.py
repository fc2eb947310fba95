"""Shards with several pictures a sample: the one that is meant is read wherever images are opened."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sslight
from sslight.api.pretrain import run_pretraining
from sslight.cli.main import app
from sslight.config import PretrainSettings
from tests.data.archives import write_tar
from tests.data.pictures import jpeg


@pytest.fixture
def shard(tmp_path: Path) -> str:
    """Sixteen samples with a left and a right picture."""
    members = [(f"{n:02}.{eye}.jpg", jpeg(2 * n + at)) for n in range(16) for at, eye in enumerate(("left", "right"))]
    return str(write_tar(tmp_path / "pairs.tar", members))


def test_a_run_and_its_report_read_the_labeled_images_as_they_are_set(
    shard: str, tiny: Callable[..., PretrainSettings], tmp_path: Path
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("".join(f"{n:02}.right,{'ab'[n % 2]}\n" for n in range(16)))
    changes = {"data__labels": str(table), "data__val_labels": str(table), "data__tar_image": "right.jpg"}
    run = run_pretraining(tiny(data__train=[shard], data__val=[shard], probe__knn_k=3, steps=2, **changes)).output
    made = sslight.report_runs(run, images=16, queries=1)
    assert made.content["notes"] == []
    page = made.page.read_text(encoding="utf-8")
    assert ".left.jpg" not in page
    assert "neighbor precision" in page  # there are classes


def test_commands_that_only_look_at_images_take_it_too(
    shard: str, tiny: Callable[..., PretrainSettings], tmp_path: Path
) -> None:
    names = tuple(f"{n:02}.left.jpg" for n in range(16))
    assert sslight.embed(shard, "timm:test_resnet", image_size=32, tar_image="left.jpg").names == names
    recipe = {"views.global_size": 32, "views.local_size": 16}
    page = sslight.show_views(
        shard, "dino_cnn_sslight_64", recipe, output=tmp_path / "views", draws=100, tar_image="left.jpg"
    ).page
    assert ".right.jpg" not in Path(page).read_text(encoding="utf-8")
    result = CliRunner().invoke(app, ["data", "inspect", shard, "tar_image=left.jpg", "workers=0", "--json"])
    found = json.loads(result.stdout)
    assert (found["num_images"], found["passed_over"]) == (16, {".right.jpg": 16})
    with pytest.raises(ValueError, match=r"set tar_image=left\.jpg to read this one of each"):
        sslight.embed(shard, "timm:test_resnet")
