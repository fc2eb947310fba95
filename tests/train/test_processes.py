"""Whole runs as several processes, and as one that is told to stop."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from sslight.api.pretrain import run_pretraining
from sslight.config import load_recipe, parse_assignments
from sslight.train import load_checkpoint
from tests.conftest import TINY
from tests.processes import in_two, run_sslight, sslight_process

METHODS: dict[str, dict[str, object]] = {
    "dino": {"dino.head_batch_norm": "false"},
    "swav": {
        "swav.head_batch_norm": "false",
        "swav.num_prototypes": 12,
        "swav.head_hidden_dim": 16,
        "swav.head_output_dim": 8,
        "swav.queue_size": 16,
        "swav.queue_start_epoch": 0,
    },
    "moco": {"moco.queue_size": 16, "moco.head_hidden_dim": 16, "moco.head_output_dim": 8},
}


def words(output: Path, method: str, **changes: object) -> list[str]:
    shared: dict[str, object] = {
        key: value for key, value in TINY.items() if not key.startswith("dino.") or method == "dino"
    }
    # A network without batch norm, whose statistics differ between one process and two on a CPU.
    settings = shared | METHODS[method] | {"backbone": "test_vit", "optim.name": "sgd", "output": output} | changes
    return ["pretrain", f"{method}_cnn_sslight_64", *(f"{key}={value}" for key, value in settings.items())]


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_train_as_one_with_the_same_global_batch(method: str, tmp_path: Path) -> None:
    pretrain(words(tmp_path / "one", method, steps=5))
    in_two(run_sslight, words(tmp_path / "two", method, steps=5))
    models = {name: load_checkpoint(tmp_path / name / "checkpoints" / "last.pt")["model"] for name in ("one", "two")}
    assert models["one"].keys() == models["two"].keys()
    for key, value in models["one"].items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(models["two"][key], value, rtol=1e-3, atol=1e-5, msg=key)
        else:
            assert models["two"][key] == value


def pretrain(typed: list[str]) -> None:
    _, recipe, *changes = typed
    run_pretraining(load_recipe(recipe, parse_assignments(changes)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_run_that_is_told_to_stop_saves_and_says_how_to_go_on(number: signal.Signals, tmp_path: Path) -> None:
    process = sslight_process(words(tmp_path / "run", "dino", steps=100000), tmp_path / "errors")
    try:
        metrics = tmp_path / "run" / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not metrics.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.pid is not None
        os.kill(process.pid, number)
        process.join(timeout=120)
    finally:
        process.kill()
    errors = (tmp_path / "errors").read_text(encoding="utf-8")
    assert process.exitcode == 1
    assert f"sslight: stopped by {number.name} after step" in errors
    assert "the same command with resume=true continues." in errors
    step = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["step"]
    assert f"after step {step} of 100000" in errors
