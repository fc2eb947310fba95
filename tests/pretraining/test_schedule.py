"""Scheduled values of whole runs against those recorded of the published recipes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslight.config import load_recipe, recipe_names
from sslight.pretraining.schedule import RunLength, rates_at, run_length, values_at

GOLDEN = Path(__file__).parents[1] / "golden" / "schedules"


PUBLISHED: dict[str, Any] = {
    name.split("/")[1]: values
    for name, values in json.loads((GOLDEN / "cases.json").read_text(encoding="utf-8"))["published_recipes"].items()
}


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name in recipe_names()])
def test_every_scheduled_value_is_that_of_the_published_run(name: str) -> None:
    recorded, settings = PUBLISHED[name], load_recipe(name)
    length = run_length(settings, recorded["iters_per_epoch"])
    assert length.total_steps == recorded["total_steps"]
    rates = [rates_at(step, settings, length) for step in recorded["step"]]
    values = [values_at(step, settings, length) for step in recorded["step"]]
    np.testing.assert_allclose([r.lr for r in rates], recorded["lr"], rtol=1e-12, atol=1e-18)
    np.testing.assert_allclose([r.weight_decay for r in rates], recorded["weight_decay"], rtol=1e-12)
    if settings.method == "dino":
        momenta = np.array([v.momentum for v in values], dtype=float)
        np.testing.assert_allclose(momenta, recorded["teacher_momentum"], rtol=1e-12)
        temperatures = np.array(
            [
                values_at(epoch * length.steps_per_epoch, settings, length).teacher_temp
                for epoch in recorded["teacher_temp_epoch"]
            ],
            dtype=float,
        )
        np.testing.assert_allclose(temperatures, recorded["teacher_temp"], rtol=1e-12)
    else:  # the original logs a momentum for these two as well, but uses none, or that of the settings
        assert {v.momentum for v in values} == {0.999 if settings.method == "moco" else None}
        assert {v.teacher_temp for v in values} == {None}


def test_all_eight_published_recipes_are_compared() -> None:
    assert len(set(PUBLISHED) & set(recipe_names())) == 8


def test_swavs_prototypes_and_queue_follow_their_epochs() -> None:
    settings = load_recipe("swav_cnn_sslight", {"epochs": 20})
    values = [values_at(step, settings, RunLength(2, 40)) for step in range(40)]
    assert [v.freeze_last_layer for v in values] == [True] * 2 + [False] * 38
    assert [v.use_queue for v in values] == [False] * 30 + [True] * 10


def test_epochs_and_steps_give_the_length_of_a_run() -> None:
    assert run_length(load_recipe("dino_cnn_sslight"), 1251) == RunLength(1251, 250_200)
    length = run_length(load_recipe("dino_cnn_sslight", {"steps": 25, "optim.warmup_epochs": 0.5}), 10)
    assert (length.total_steps, length.in_steps(0.5)) == (25, 5)


def test_a_warm_up_as_long_as_the_run_is_refused_with_a_length_that_works() -> None:
    with pytest.raises(ValueError, match=r"is 100 steps of 10 an epoch, not shorter than the run of 50 steps") as error:
        run_length(load_recipe("dino_cnn_sslight", {"steps": 50}), 10)
    remedy = float(str(error.value).rsplit("=", 1)[1].rstrip("."))
    assert run_length(load_recipe("dino_cnn_sslight", {"steps": 50, "optim.warmup_epochs": remedy}), 10)


def test_a_backbone_that_would_be_frozen_to_the_end_is_refused_with_a_length_that_works() -> None:
    run = {"steps": 4, "optim.warmup_epochs": 0.1, "init_from": "weights.safetensors"}
    with pytest.raises(ValueError, match=r"^freeze_backbone_epochs=1 is 4 steps .* not shorter than the run") as error:
        run_length(load_recipe("moco_cnn_sslight", run | {"freeze_backbone_epochs": 1}), 4)
    remedy = float(str(error.value).rsplit("=", 1)[1].rstrip("."))
    assert run_length(load_recipe("moco_cnn_sslight", run | {"freeze_backbone_epochs": remedy}), 4).total_steps == 4


def test_the_last_layer_is_frozen_for_its_epochs_and_a_short_run_stops_on_the_way_of_the_temperature() -> None:
    settings = load_recipe("dino_cnn_sslight", {"epochs": 2, "optim.warmup_epochs": 1})
    length = RunLength(5, 10)
    values = [values_at(step, settings, length) for step in range(10)]
    assert [v.freeze_last_layer for v in values] == [True] * 5 + [False] * 5
    assert values[0].teacher_temp == 0.04
    assert values[9].teacher_temp == pytest.approx(0.04 + 0.03 / 49)
    momenta = [v.momentum or 0.0 for v in values]
    assert momenta == sorted(momenta)


def test_multi_step_rates_fall_at_their_epochs() -> None:
    changes = {"optim.schedule": "multistep", "optim.milestones": [2, 3], "optim.warmup_epochs": 1, "epochs": 4}
    settings = load_recipe("dino_cnn_sslight", {**changes, "batch_size": 256, "lr": 1.0})
    rates = [rates_at(step, settings, RunLength(3, 12)).lr for step in range(12)]
    np.testing.assert_allclose(rates, [0, 0.5, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])


def test_weight_decay_is_constant_or_follows_a_cosine() -> None:
    cnn, vit = load_recipe("dino_cnn_sslight"), load_recipe("dino_vit_sslight")
    length = RunLength(10, 2000)
    assert {rates_at(step, cnn, length).weight_decay for step in range(0, 2000, 100)} == {1e-6}
    decays = [rates_at(step, vit, length).weight_decay for step in (0, 1000, 1999)]
    assert decays == pytest.approx([0.04, 0.22, 0.4], abs=1e-5)
