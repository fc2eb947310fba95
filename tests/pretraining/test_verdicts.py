"""Runs that were made to go wrong are told apart, and healthy ones raise no alarm."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sslight.api.pretrain import run_pretraining
from sslight.config import PretrainSettings, load_recipe
from sslight.pretraining.health import HEALTHY, HealthWatch
from sslight.train.task import EARLY, Verdict
from tests.golden import GOLDEN

Settings = Callable[..., PretrainSettings]

SHARED: dict[str, Any] = {
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


TROUBLES: dict[str, tuple[str, dict[str, Any]]] = {
    "no centring": ("dino", {"dino.center_momentum": 1.0}),
    "teacher temperature too high": ("dino", {"dino.teacher_temp": 0.2}),
    "momentum 0": ("dino", {"dino.teacher_momentum": 0.0}),
    "rate of dino x 100": ("dino", {"lr": 0.8}),
    "epsilon too high": ("swav", {"swav.epsilon": 1.0}),
    "key momentum 0": ("moco", {"moco.key_momentum": 0.0}),
    "rate of moco x 100": ("moco", {"lr": 0.8}),
}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {method: (method, {}) for method in METHODS} | TROUBLES
RECORDED = GOLDEN / "verdicts.json"
"""The figures that these runs wrote down; ``python -m tests.pretraining.test_verdicts`` trains them again."""


def settings_of(run: str, output: str, **more: Any) -> PretrainSettings:
    method, changes = RUNS[run]
    return load_recipe(f"{method}_cnn_sslight_64", {**SHARED, **METHODS[method], **changes, "output": output, **more})


def train(run: str, output: str, **more: Any) -> list[dict[str, Any]]:
    """The figures of a run, the times and its own verdicts left out."""
    result = run_pretraining(settings_of(run, output, **more))
    lines = (result.output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    left_out = ("health", "data_wait_share", "images_per_second", "seconds")
    return [{key: value for key, value in json.loads(line).items() if key not in left_out} for line in lines]


@pytest.fixture
def judge(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], list[Verdict]]:
    """The verdicts on a run: on its recorded figures, or (slow) on those of the run trained now."""

    def judge(run: str) -> list[Verdict]:
        settings = settings_of(run, "unused")
        health = HealthWatch(settings, rows=settings.batch_size)
        if request.param == "recorded":
            records = json.loads(RECORDED.read_text(encoding="utf-8"))[run]
        else:
            records = train(run, str(tmp_path / "run"))
        # These runs have no loader processes, so they always wait for data.
        return [health.judge(record["step"], {**record, "data_wait_share": 0.0}) for record in records]

    return judge


recorded_or_trained = pytest.mark.parametrize(
    "judge", ["recorded", pytest.param("trained", marks=pytest.mark.slow)], indirect=True
)


@recorded_or_trained
@pytest.mark.parametrize("method", METHODS)
def test_a_healthy_run_raises_no_alarm_once_it_is_under_way(judge: Callable[[str], list[Verdict]], method: str) -> None:
    judged = judge(method)
    # SwAV's assignments are nearly uniform for its first 60 steps here, and are then told as such.
    assert {verdict.state for verdict in judged[len(judged) // 2 :]} == {"healthy"}


@recorded_or_trained
@pytest.mark.parametrize(
    ("run", "states", "finding", "advice"),
    [
        ("no centring", {"watch", "collapsed"}, "targets hardly differ", "dino.center_momentum=0.9"),
        (
            "teacher temperature too high",
            {"watch"},
            "targets are nearly uniform",
            "a lower dino.teacher_temp than 0.2",
        ),
        ("momentum 0", {"watch"}, "change faster than the student", "dino.teacher_momentum=0.99"),
        ("rate of dino x 100", {"watch", "collapsed"}, "", "lr · batch_size / 256 = 0.1 is above the usual"),
    ],
)
def test_a_provoked_trouble_of_dino_is_named(
    judge: Callable[[str], list[Verdict]], run: str, states: set[str], finding: str, advice: str
) -> None:
    judged = judge(run)
    named = [v for v in judged if v.state in states and finding in v.finding and advice in v.advice]
    alarms = [v for v in judged if v.state in ("watch", "collapsed")]
    assert len(named) >= 3
    assert len(named) > len(alarms) / 2  # the right name, not one among many


@recorded_or_trained
@pytest.mark.parametrize(
    ("run", "finding", "advice"),
    [
        ("epsilon too high", "the assignments are nearly uniform", "a lower swav.epsilon than 1"),
        ("key momentum 0", "queries do not find their keys", "moco.key_momentum=0.99"),
        ("rate of moco x 100", "", "lr · batch_size / 256 = 0.1 is above the usual"),
    ],
)
def test_a_provoked_trouble_of_swav_and_moco_is_named(
    judge: Callable[[str], list[Verdict]], run: str, finding: str, advice: str
) -> None:
    judged = judge(run)
    late = judged[len(judged) // 2 :]
    named = [v for v in late if v.state in ("watch", "collapsed") and finding in v.finding and advice in v.advice]
    assert len(named) > len(late) / 2


def test_the_figures_of_a_run_are_those_that_were_recorded(tmp_path: Path) -> None:
    """The first steps of one run, trained now: what is judged above is what a run writes down."""
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))["no centring"][:4]
    now = train("no centring", str(tmp_path / "run"), steps=20)
    assert [record.keys() for record in now] == [record.keys() for record in recorded]
    assert now[0]["loss"] == pytest.approx(recorded[0]["loss"], rel=1e-3)


def figures(**changes: float) -> dict[str, float]:
    healthy = {"loss": 5.0, "teacher_entropy": 0.6, "target_spread": 0.9, "divergence": 0.5, "teacher_temp": 0.04}
    return {**healthy, "feature_spread": 0.6, "effective_rank": 20.0, "data_wait_share": 0.0, **changes}


def test_a_verdict_needs_several_records_and_waits_for_the_start(tiny: Settings) -> None:
    health = HealthWatch(tiny(dino__head_output_dim=1024), rows=32)
    assert [health.judge(step, figures()) for step in (38, 39, 40, 41)] == [EARLY] * 4
    assert health.judge(42, figures()) == HEALTHY


@pytest.mark.parametrize(
    ("entropy", "spread", "finding", "advice"),
    [
        (0.91, 0.99, "the teacher's targets are nearly uniform", "a lower dino.teacher_temp"),
        (0.90, 0.99, "the teacher's targets are nearly uniform", "a lower dino.teacher_temp"),
        (0.50, 0.55, "the teacher's targets hardly differ between images", "a higher dino.teacher_temp"),
        # ResNet-10-T without centering: 13 % of what targets could tell, from two of 256 outputs
        (0.02, 0.12, "the teacher's targets hardly differ between images", "a higher dino.teacher_temp"),
    ],
)
def test_advice_does_not_turn_round_where_targets_become_a_little_sharper(
    entropy: float, spread: float, finding: str, advice: str, tiny: Settings
) -> None:
    health = HealthWatch(tiny(dino__head_output_dim=256), rows=32)
    judged = [health.judge(100 + i, figures(teacher_entropy=entropy, target_spread=spread)) for i in range(5)]
    assert judged[-1].finding.startswith(finding)
    assert advice in judged[-1].advice


def test_few_images_cannot_use_many_outputs(tiny: Settings) -> None:
    """Eight targets, each another output of 65,536: the entropy of their mean is at most ln 8."""
    health = HealthWatch(tiny(dino__head_output_dim=65536), rows=4)
    judged = [health.judge(100 + i, figures(teacher_entropy=0.02, target_spread=0.18)) for i in range(5)]
    assert "hardly differ" not in judged[-1].finding


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
    ("contrast", "koleo", "state"), [(5.0, 1.5, "healthy"), (6.2, 0.0, "watch"), (6.2, -0.5, "watch")]
)
def test_the_loss_of_moco_is_judged_without_koleo(contrast: float, koleo: float, state: str) -> None:
    health = HealthWatch(settings_of("moco", "unused", **{"moco.koleo_weight": 2.0}), rows=32)  # chance: ln 513 = 6.24
    measured = figures(loss=contrast + 2.0 * koleo, koleo_loss=koleo)
    judged = [health.judge(100 + i, measured) for i in range(5)]
    assert judged[-1].state == state
    assert ("queries do not find their keys (loss 6.20, chance 6.24)" in judged[-1].finding) == (state == "watch")


@pytest.mark.parametrize(
    ("measured", "finding"),
    [
        ([(0, 6.0, 0), (100, 5.1, 0.6), (200, 3.8, 0.5)], "the last measurement is below the network before training"),
        ([(0, 10.0, 0), (100, 40.0, 0.6), (200, 34.0, 0.5), (300, 33.0, 0.5)], "the accuracy fell (kNN 40.0 % at"),
        (
            [(0, 10.0, 0), (100, 30.0, 0.6), (200, 41.0, 0.49), (300, 41.3, 0.3), (400, 41.2, 0.12)],
            "the accuracy has stalled while the targets became sharper (kNN 41.0 % at step 200, now 41.2 %",
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


def test_given_weights_are_not_spared_the_first_measurement(tiny: Settings) -> None:
    """EfficientNet-Lite0's public weights lost 16 points in 105 steps of a run that measured once, at its end."""
    health = HealthWatch(
        tiny(dino__head_output_dim=1024, init_from="weights.safetensors", lr=1.0), rows=32, measured=2000
    )
    verdict = judged_with(health, (0, 66.8, 0), (105, 50.9, 0.6))
    assert verdict.state == "watch"
    assert "kNN 50.9 %, start weights 66.8 %" in verdict.finding
    assert "freeze_norms=true" in verdict.advice


def test_a_resumed_run_is_judged_as_it_was(tiny: Settings) -> None:
    first, second = (HealthWatch(tiny(dino__head_output_dim=1024), rows=32, measured=5000) for _ in range(2))
    judged_with(first, (0, 6.0, 0), (100, 5.1, 0.6))
    second.load_state_dict(first.state_dict())
    assert judged_with(second, (200, 3.8, 0.5)) == judged_with(first, (200, 3.8, 0.5)) != HEALTHY


@pytest.mark.parametrize(
    ("total", "measured", "told"),
    [
        (1000, [(0, 10.0), (100, 30.0), (300, 45.0), (400, 45.3), (500, 44.9), (600, 45.2)], True),
        (
            1000,
            [(0, 10.0), (100, 30.0), (300, 45.0), (400, 45.3), (450, 44.9), (480, 45.2)],
            False,
        ),  # before the middle
        (1000, [(0, 10.0), (100, 30.0), (300, 40.0), (400, 45.3), (500, 48.0), (600, 51.2)], False),  # it rises
        (600, [(0, 10.0), (100, 30.0), (300, 45.0), (400, 45.3), (500, 44.9), (600, 45.2)], False),  # the end
    ],
)
def test_it_is_said_when_going_on_has_stopped_paying(
    total: int, measured: list[tuple[int, float]], told: bool, tiny: Settings
) -> None:
    health = HealthWatch(tiny(), rows=32, measured=5000)
    for step, knn in measured:
        health.judge(step, {"knn_top1": knn})
    sentence = health.stopped_paying(total)
    assert (sentence is not None) is told
    since = "kNN has not risen since step 300 (45.0 %), for 300 of 600 steps, by more than chance with 5,000 images"
    assert sentence is None or sentence.startswith(since)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        recorded = {run: train(run, f"{folder}/{number}") for number, run in enumerate(RUNS)}
    RECORDED.write_text(json.dumps(recorded) + "\n", encoding="utf-8")
