"""Shared by all tests: small settings that train in about a second."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sslight.config import PretrainSettings, load_recipe

torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for the whole suite, and none beside this one for files that are named: it starts sooner."""
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        return 2
    config.option.dist = "no"
    return 0


TINY = {
    "backbone": "test_resnet",
    "data.train": ["synthetic:40"],
    "batch_size": 8,
    "steps": 4,
    "workers": 0,
    "devices": "cpu",
    "log_every": 1,
    "logger": "none",
    "views.num_local": 2,
    "views.global_size": 32,
    "views.local_size": 16,
    "lr": 0.48,
    "optim.min_lr": 0.0048,
    "optim.warmup_epochs": 0.2,
    "dino.head_hidden_dim": 16,
    "dino.head_bottleneck_dim": 8,
    "dino.head_output_dim": 32,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the program keeps between runs lies in a folder of this test alone."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def tiny_settings(*, output: str | Path, method: str = "dino", **changes: Any) -> PretrainSettings:
    """Settings of a run of a second; keyword ``changes`` are dotted names, with ``__`` for a dot."""
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    fitting = {name: value for name, value in TINY.items() if method == "dino" or not name.startswith("dino.")}
    return load_recipe(f"{method}_cnn_sslight_64", {**fitting, "output": str(output), **dotted})


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., PretrainSettings]:
    """``tiny_settings`` of a run below the test's folder."""
    return partial(tiny_settings, output=tmp_path / "run")


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes JPEGs of noise: ``image_folder("name", classes=("a", "b"), each=3)``; no classes make it flat."""

    def write(name: str, classes: tuple[str, ...] = (), each: int = 12, size: int = 40) -> Path:
        root = tmp_path / name
        rng = np.random.default_rng(len(name))
        for folder in [root / label for label in classes] or [root]:
            folder.mkdir(parents=True)
            for i in range(each):
                coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
                Image.fromarray(coarse).resize((size, size + 8)).save(folder / f"{i:03}.jpg", quality=90)
        return root

    return write
