"""Runs that were made to go wrong are told apart, and healthy ones raise no alarm."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from sslight.api.pretrain import run_pretraining
from sslight.config import PretrainSettings, load_recipe
from sslight.pretraining.health import HEALTHY, HealthWatch
from sslight.train.task import EARLY, Verdict

Settings = Callable[..., PretrainSettings]

SHARED = {
    "data.train": ["synthetic:320"],
    "batch_size": 32,
    "steps": 160,
    "views.global_size": 24,
    "views.local_size": 12,
    "views.num_local": 1,
    "views.blur_sigma": [0.1, 0.3],
    "views.jitter_prob": 0.8,
    "views.grayscale_prob": 0.2,
    "views.solarize_prob": [0.0, 0.2],
    "optim.name": "adamw",
    "optim.weight_decay": 0.04,
    "optim.min_lr": 1e-5,
    "optim.warmup_epochs": 1,
    "lr": 0.008,
    "log_every": 5,
    "workers": 0,
    "devices": "cpu",
    "logger": "none",
    "backbone": "test_resnet",
    "checkpoint.every_epochs": None,
}
METHODS: dict[str, dict[str, Any]] = {
    "dino": {
        "dino.head_hidden_dim": 64,
        "dino.head_bottleneck_dim": 64,
        "dino.head_output_dim": 256,
        "dino.teacher_temp": 0.04,
        "dino.warmup_teacher_temp_epochs": 0,
        "dino.freeze_last_layer_epochs": 0,
        "dino.teacher_momentum": 0.98,
        "dino.center_momentum": 0.9,
    },
    "swav": {
        "optim.name": "lars",
        "optim.weight_decay": 1e-6,
        "optim.min_lr": 0.01,
        "lr": 8.0,
        "swav.epsilon": 0.03,
        "swav.num_prototypes": 64,
        "swav.head_hidden_dim": 128,
        "swav.queue_size": 0,
        "swav.freeze_prototypes_epochs": 0,
    },
    "moco": {"moco.queue_size": 512, "moco.head_hidden_dim": 64, "moco.key_momentum": 0.99},
}


def verdicts(method: str, output: str, **changes: Any) -> list[Verdict]:
    """The verdicts of a run by its records; waiting for data left out, for these runs have no loader processes."""
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    settings = load_recipe(f"{method}_cnn_sslight_64", {**SHARED, **METHODS[method], **dotted, "output": output})
    result = run_pretraining(settings)
    health = HealthWatch(settings, rows=settings.batch_size)
    records = [json.loads(line) for line in (result.output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    figures_only = [{k: v for k, v in record.items() if k != "health"} for record in records]
    return [health.judge(record["step"], {**record, "data_wait_share": 0.0}) for record in figures_only]


@pytest.mark.parametrize("method", METHODS)
def test_a_healthy_run_raises_no_alarm_once_it_is_under_way(method: str, tmp_path: Any) -> None:
    judged = verdicts(method, str(tmp_path / "run"))
    # SwAV's assignments are nearly uniform for its first 60 steps here, and are then told as such.
    assert {verdict.state for verdict in judged[len(judged) // 2 :]} == {"healthy"}


@pytest.mark.parametrize(
    ("changes", "states", "finding", "advice"),
    [
        ({"dino__center_momentum": 1.0}, {"watch", "collapsed"}, "targets hardly differ", "dino.center_momentum=0.9"),
        (
            {"dino__teacher_temp": 0.2},
            {"collapsed"},
            "targets are nearly uniform",
            "a lower dino.teacher_temp than 0.2",
        ),
        ({"dino__teacher_momentum": 0.0}, {"watch"}, "change faster than the student", "dino.teacher_momentum=0.99"),
        ({"lr": 0.8}, {"watch", "collapsed"}, "", "lr · batch_size / 256 = 0.1 is above the usual"),
    ],
    ids=["no centring", "teacher temperature too high", "momentum 0", "lr x 100"],
)
def test_a_provoked_trouble_of_dino_is_named(
    changes: dict[str, Any], states: set[str], finding: str, advice: str, tmp_path: Any
) -> None:
    judged = verdicts("dino", str(tmp_path / "run"), **changes)
    named = [v for v in judged if v.state in states and finding in v.finding and advice in v.advice]
    alarms = [v for v in judged if v.state in ("watch", "collapsed")]
    assert len(named) >= 3
    assert len(named) > len(alarms) / 2  # the right name, not one among many


@pytest.mark.parametrize(
    ("method", "changes", "finding", "advice"),
    [
        ("swav", {"swav__epsilon": 1.0}, "the assignments are nearly uniform", "a lower swav.epsilon than 1"),
        ("moco", {"moco__key_momentum": 0.0}, "queries do not find their keys", "moco.key_momentum=0.99"),
        ("moco", {"lr": 0.8}, "", "lr · batch_size / 256 = 0.1 is above the usual"),
    ],
)
def test_a_provoked_trouble_of_swav_and_moco_is_named(
    method: str, changes: dict[str, Any], finding: str, advice: str, tmp_path: Any
) -> None:
    judged = verdicts(method, str(tmp_path / "run"), **changes)
    late = judged[len(judged) // 2 :]
    named = [v for v in late if v.state in ("watch", "collapsed") and finding in v.finding and advice in v.advice]
    assert len(named) > len(late) / 2


def figures(**changes: float) -> dict[str, float]:
    healthy = {"loss": 5.0, "teacher_entropy": 0.6, "target_spread": 0.9, "divergence": 0.5, "teacher_temp": 0.04}
    return {**healthy, "feature_spread": 0.6, "effective_rank": 20.0, "data_wait_share": 0.0, **changes}


def test_a_verdict_needs_several_records_and_waits_for_the_start(tiny: Settings) -> None:
    health = HealthWatch(tiny(dino__head_output_dim=1024), rows=32)
    assert [health.judge(step, figures()) for step in (38, 39, 40, 41)] == [EARLY] * 4
    assert health.judge(42, figures()) == HEALTHY


def test_waiting_for_data_is_starving_and_a_collapse_is_worse(tiny: Settings) -> None:
    health = HealthWatch(tiny(dino__head_output_dim=1024), rows=32)
    judged = [health.judge(100 + i, figures(data_wait_share=0.5)) for i in range(5)]
    assert judged[-1].state == "starved"
    judged = [health.judge(200 + i, figures(data_wait_share=0.5, feature_spread=0.01)) for i in range(5)]
    assert judged[-1].state == "collapsed"
    assert "the features of all images are alike" in str(judged[-1])


def judged_with(health: HealthWatch, *measured: tuple[int, float, float]) -> Verdict:
    """The verdict of a run whose other figures are healthy: step, kNN accuracy and teacher entropy each time."""
    verdict = EARLY
    for step, knn, entropy in measured:
        for number in range(5 if step else 0):
            health.judge(step - 5 + number, figures(teacher_entropy=entropy, target_spread=0.9))
        verdict = health.judge(step, {"knn_top1": knn})
    return verdict


@pytest.mark.parametrize(
    ("measured", "finding"),
    [
        ([(0, 6.0, 0), (100, 5.1, 0.6), (200, 3.8, 0.5)], "the last measurement is below the untrained network"),
        ([(0, 10.0, 0), (100, 40.0, 0.6), (200, 34.0, 0.5), (300, 33.0, 0.5)], "the accuracy fell (kNN 40.0 % at"),
        (
            [(0, 10.0, 0), (100, 30.0, 0.6), (200, 41.0, 0.49), (300, 41.3, 0.3), (400, 41.2, 0.12)],
            "the accuracy has stood still while the targets became sharper (kNN 41.0 % at step 200, now 41.2 %",
        ),
    ],
)
def test_a_run_that_does_not_learn_is_watched_by_its_accuracy(
    measured: list[tuple[int, float, float]], finding: str, tiny: Settings
) -> None:
    verdict = judged_with(HealthWatch(tiny(dino__head_output_dim=1024), rows=32, measured=5000), *measured)
    assert verdict.state == "watch"
    assert verdict.finding.startswith(finding)


@pytest.mark.parametrize(
    "measured",
    [
        [(0, 34.0, 0), (100, 30.0, 0.6)],  # the first of several
        [(0, 34.0, 0), (100, 30.0, 0.6), (200, 47.0, 0.4), (300, 62.0, 0.3)],
        [(0, 34.0, 0), (100, 50.0, 0.6), (200, 49.0, 0.5), (300, 49.5, 0.45)],  # within the error of 500 images
    ],
)
def test_a_run_that_learns_or_may_have_is_healthy(measured: list[tuple[int, float, float]], tiny: Settings) -> None:
    assert judged_with(HealthWatch(tiny(dino__head_output_dim=1024), rows=32, measured=500), *measured) == HEALTHY


def test_a_resumed_run_is_judged_as_it_was(tiny: Settings) -> None:
    first, second = (HealthWatch(tiny(dino__head_output_dim=1024), rows=32, measured=5000) for _ in range(2))
    judged_with(first, (0, 6.0, 0), (100, 5.1, 0.6))
    second.load_state_dict(first.state_dict())
    assert judged_with(second, (200, 3.8, 0.5)) == judged_with(first, (200, 3.8, 0.5)) != HEALTHY
