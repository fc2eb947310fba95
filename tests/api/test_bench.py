"""What the benchmarks of the loader and the step report."""

from collections.abc import Callable

import pytest
import torch

from sslight.api.bench import bench_loader, bench_step
from sslight.config import PretrainSettings, load_recipe
from sslight.data import SyntheticSource
from sslight.pretraining import speed as benchmark
from sslight.pretraining.speed import loader_bottleneck, step_bottleneck, step_speed
from sslight.train import Placement
from tests.conftest import TINY

Settings = Callable[..., PretrainSettings]


@pytest.fixture
def small() -> Settings:
    """Tiny settings of a method's recipe."""

    def settings(method: str, **changes: object) -> PretrainSettings:
        common = {key: value for key, value in TINY.items() if not key.startswith("dino.") or method == "dino"}
        dotted = {key.replace("__", "."): value for key, value in changes.items()}
        return load_recipe(f"{method}_cnn_sslight_64", {**common, **dotted})

    return settings


HEADS: dict[str, dict[str, object]] = {
    "dino": {},
    "swav": {"swav__queue_size": 8, "swav__num_prototypes": 8, "swav__head_hidden_dim": 16},
    "moco": {"moco__queue_size": 8, "moco__head_hidden_dim": 16},
}


@pytest.mark.parametrize("method", HEADS)
def test_the_parts_of_a_step_sum_to_the_whole(small: Settings, method: str) -> None:
    speed = step_speed(small(method, **HEADS[method]), SyntheticSource(40, size=32, labeled=False), steps=2)
    parts = {"student forward", "loss", "backward", "optimizer", "teacher update"}
    if method != "swav":
        parts.add("teacher forward")
    assert speed.steps == 2
    assert sum(speed.parts.values()) == pytest.approx(speed.ms_per_step, rel=0.2)
    assert all(speed.parts[name] > 0 for name in parts)
    assert speed.images_per_second == pytest.approx(8000 / speed.ms_per_step)


def test_a_benchmark_leaves_nothing_behind(tiny: Settings) -> None:
    settings = tiny()
    bench_step(settings, steps=1)
    assert settings.output is not None
    assert not settings.output.exists()


def test_the_loader_is_measured_over_epochs(tiny: Settings) -> None:
    speed = bench_loader(tiny(workers=1), seconds=1.0)
    assert speed.images > 40
    assert speed.images_per_second == pytest.approx(speed.images / speed.seconds)
    assert speed.workers == 1
    assert 0 < speed.share_of_decoding_limit < 5  # a second each: other programs may disturb one of them
    assert min(speed.ms_reading, speed.ms_decoding, speed.ms_views) > 0


@pytest.mark.parametrize(
    ("parts", "workers", "start"),
    [
        (
            (1.0, 2.0, 3.0),
            1,
            "the number of workers: workers=1 leaves cores idle: leave it out for the default, 2 here.",
        ),
        ((3.0, 2.0, 1.0), 2, "reading (reading 50%, decoding 33%, views 17% of an image)"),
        ((1.0, 3.0, 2.0), 2, "decoding (reading 17%, decoding 50%, views 33% of an image)"),
        ((1.0, 2.0, 3.0), 2, "the views (reading 17%, decoding 33%, views 50% of an image)"),
    ],
)
def test_the_loaders_bottleneck_is_named(parts: tuple[float, float, float], workers: int, start: str) -> None:
    assert loader_bottleneck(*parts, workers=workers, default=2).startswith(start)


@pytest.mark.parametrize(
    ("parts", "start"),
    [
        ({"data wait": 50.0, "backward": 50.0}, "the loader: 50% of the time is spent waiting for data"),
        ({"data wait": 1.0, "backward": 60.0, "loss": 39.0}, "the backward pass (60% of the step): precision=bf16,"),
        ({"data wait": 1.0, "backward": 9.0, "optimizer": 90.0}, "the optimizer (90% of the step): its cost does not"),
    ],
)
def test_the_steps_bottleneck_is_named(parts: dict[str, float], start: str) -> None:
    assert step_bottleneck(parts, workers=64, on_gpu=True, precision="32").startswith(start)


def test_bf16_is_not_recommended_where_it_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "bf16_is_fast_on_cpu", lambda: False)
    said = step_bottleneck({"data wait": 1.0, "backward": 99.0}, workers=2, on_gpu=False, precision="32")
    assert "bf16" not in said
    assert "smaller views" in said


@pytest.mark.parametrize("devices", ["auto", "gpu", "4"])
def test_a_step_is_timed_on_one_gpu_of_several(devices: str, tiny: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    placements: list[Placement] = []

    def no_fabric(settings: PretrainSettings, placement: Placement) -> None:
        placements.append(placement)
        raise InterruptedError

    monkeypatch.setattr(benchmark, "build_fabric", no_fabric)
    with pytest.raises(InterruptedError):
        bench_step(tiny(devices=devices), steps=1)
    assert placements == [Placement("cuda", 1, 1)]
