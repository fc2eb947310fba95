"""Configurations of the original become equal settings here; what cannot be followed is said."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sslight.config import build_settings, load_recipe, translate_original

RECORDED = json.loads((Path(__file__).parents[2] / "golden" / "recipes.json").read_text(encoding="utf-8"))
PUBLISHED: dict[str, dict[str, Any]] = RECORDED["pretraining"]


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write_yaml(content: dict[str, Any]) -> Path:
        path = tmp_path / "original.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return write_yaml


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_published_configuration_becomes_its_recipe(name: str, write: Any) -> None:
    settings = build_settings(translate_original(write(PUBLISHED[name])).settings, {})
    recipe = load_recipe(name)
    own = {
        "data": recipe.data.model_copy(
            update={"train": ["datasets/imagenet_ori/train.h5"], "val": ["datasets/imagenet_ori/val.h5"]}
        ),
        "output": Path("tmp"),
        "workers": 4,
        "log_every": 20,
        "patch_size": 16 if "vit" in name else None,
        "optim": recipe.optim.model_copy(
            update={
                "weight_decay_final": settings.optim.weight_decay_final,
                "milestones": [60, 80],
            }
        ),
    }
    assert settings == recipe.model_copy(update=own)
    final = recipe.optim.weight_decay if recipe.optim.weight_decay_final is None else recipe.optim.weight_decay_final
    assert settings.optim.weight_decay_final == final


def test_the_defaults_are_the_recorded_ones(write: Any) -> None:
    everything = translate_original(write(RECORDED["pretraining_defaults"])).settings
    assert everything == translate_original(write({})).settings


def test_pairs_come_last_and_batch_sizes_become_global(write: Any) -> None:
    pairs = (
        "TRAIN.BATCH_SIZE 32 NUM_GPUS_PER_NODE 2 N_NODES 3 TRAIN.JOINT_LINEAR_PROBE True MODEL.BACKBONE_ARCH resnet18"
    )
    paths = ["DATA.PATH_TO_DATA_DIR", "/images", "OUTPUT_DIR", "runs/a", "SOLVER.BASE_LR", "1e-3"]
    translation = translate_original(write({"TRAIN": {"BATCH_SIZE": 64}}), [*pairs.split(), *paths])
    settings = build_settings(translation.settings, {"seed": 5})
    assert settings.batch_size == 192
    assert settings.probe.linear
    assert settings.backbone == "resnet18"
    assert settings.data.train == ["/images/train.h5"]
    assert settings.lr == 1e-3
    assert settings.seed == 5
    assert any(
        "batch_size=192 is TRAIN.BATCH_SIZE 32 a GPU × NUM_GPUS_PER_NODE 2 × N_NODES 3" in n for n in translation.notes
    )


def test_global_only_mode_and_half_precision_are_translated(write: Any) -> None:
    settings = build_settings(translate_original(write({"DINO": {"GLOBAL_ONLY": True}, "USE_FP16": True})).settings, {})
    assert settings.views.num_local == 0
    assert settings.precision == "16"


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ({"DIST_URL": "tcp://x"}, "DIST_URL has no effect here: torchrun or SLURM gives it."),
        ({"TWO_VIEWS_TRANSFORMS": {"CROP_PROB": [1, 1]}}, "TWO_VIEWS_TRANSFORMS.CROP_PROB has no effect here"),
        ({"MOCO": {"MOMENTUM": 0.9}}, "MOCO.MOMENTUM had no effect there: it is not of DINO."),
        ({"SEED": 3}, "SEED never reached the original's training processes"),
        ({"MULTI_VIEWS_TRANSFORMS": {"GREYSCALE_PROB": [0.2, 0.7]}}, "its entry 0.7 had no effect there"),
        ({"MULTI_VIEWS_TRANSFORMS": {"SOLARIZATION_PROB": [0.3, 0.2]}}, "its entry 0.3 had no effect there"),
        ({"SSL_METHOD": "SWAV", "USE_FP16": True}, "USE_FP16 had no effect on SwAV there; here it has."),
    ],
)
def test_keys_without_effect_are_said(content: dict[str, Any], note: str, write: Any) -> None:
    assert any(note in each for each in translate_original(write(content)).notes)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"SOLVER": {"BASE_LRR": 1}}, "SOLVER.BASE_LRR is not a key of the original: did you mean SOLVER.BASE_LR"),
        ({"SSL_METHOD": "BYOL"}, "SSL_METHOD BYOL has no counterpart: choose one of dino, swav, moco"),
        ({"SOLVER": {"LARS_EXCLUDE_DW": True}}, "LARS always adapts depth-wise kernels here; leave it at False"),
        ({"MULTI_VIEWS_TRANSFORMS": {"LAMBDAS": [0.4, 0.7]}}, "must sum to 1"),
        ({"MULTI_VIEWS_TRANSFORMS": {"LOCAL_CROPS_NUMBER": 4}}, "NMB_CROPS [2, 6] contradicts LOCAL_CROPS_NUMBER 4"),
    ],
)
def test_what_cannot_be_followed_is_refused(content: dict[str, Any], sentence: str, write: Any) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        translate_original(write(content))
    assert sentence in str(error.value)


def test_a_pair_without_its_value_is_refused(write: Any) -> None:
    with pytest.raises(ValueError, match="SEED has no value"):
        translate_original(write({}), ["USE_FP16", "True", "SEED"])
