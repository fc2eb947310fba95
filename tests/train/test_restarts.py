"""Runs of two processes that are killed, restarted by torchrun or SLURM, and end as if nothing had happened."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from sslight.train import load_checkpoint
from tests.train.test_processes import ENVIRONMENT, words

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
TWO_HERE = [*TORCHRUN, "--standalone", "--nproc-per-node=2"]
RUN: dict[str, object] = {"steps": 60, "resume": "auto", "checkpoint.every_steps": 5, "data.train": "synthetic:400"}
TIMES = ("images_per_second", "data_wait_share", "health")


FRESH_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Without it torchrun keeps the addresses of the processes before a restart, to which the new ones then connect."""


def command(output: Path, *launcher: str, **changes: object) -> list[str]:
    return [*launcher, "-m", "sslight", *words(output, "dino", **RUN | changes)]


@contextmanager
def started(words: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        words, env=ENVIRONMENT | FRESH_STORE | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        for pid in workers_of(process) if process.poll() is None else ():
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate(timeout=60)


def kill_a_worker(launcher: subprocess.Popen[str], output: Path, *, after_step: int) -> None:
    """SIGKILL the last process that the launcher started, once the run is beyond a step."""
    deadline = time.monotonic() + 400
    while steps(output) <= after_step:
        assert time.monotonic() < deadline
        assert launcher.poll() is None, launcher.communicate()[0]
        time.sleep(0.02)
    victim = max(workers_of(launcher))
    os.kill(victim, signal.SIGKILL)
    while victim in workers_of(launcher):
        time.sleep(0.02)


def workers_of(launcher: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text(encoding="utf-8").split()
    found = []
    for pid in children:
        with suppress(OSError):  # it ended meanwhile
            if b"LOCAL_RANK=" in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(int(pid))
    return found


def steps(output: Path) -> int:
    metrics = output / "metrics.jsonl"
    return len(metrics.read_text(encoding="utf-8").splitlines()) if metrics.exists() else 0


def finished(words: list[str], **environment: str) -> str:
    done = subprocess.run(words, env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("uninterrupted") / "run"
    finished(command(output, *TWO_HERE))
    return output


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, optimiser, random streams, step and every line of metrics, bit for bit."""
    states = [comparable(load_checkpoint(output / "checkpoints" / "last.pt")) for output in (one, other)]
    assert same(states[0], states[1])
    logs = [
        [comparable(json.loads(line)) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        for output in (one, other)
    ]
    assert logs[0] == logs[1]
    assert len(logs[0]) == RUN["steps"]
    assert (one / "backbone.safetensors").read_bytes() == (other / "backbone.safetensors").read_bytes()


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(part, other[key]) for key, part in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: comparable(part) for key, part in value.items() if key not in ("settings", *TIMES)}
    return [comparable(part) for part in value] if isinstance(value, list | tuple) else value


@pytest.mark.slow
def test_a_killed_process_is_restarted_by_torchrun_and_the_run_ends_bit_for_bit_equal(
    tmp_path: Path, uninterrupted: Path
) -> None:
    output = tmp_path / "run"
    with started(command(output, *TWO_HERE, "--max-restarts=3")) as torchrun:
        for after_step in (12, 31):
            kill_a_worker(torchrun, output, after_step=after_step)
        printed, _ = torchrun.communicate(timeout=500)
        assert torchrun.returncode == 0, printed
    assert_same_run(uninterrupted, output)


@pytest.mark.slow
def test_two_nodes_meet_again_after_a_process_of_one_was_killed(tmp_path: Path, uninterrupted: Path) -> None:
    output = tmp_path / "run"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test"]
    node = [*TORCHRUN, "--nnodes=2", "--nproc-per-node=1", "--max-restarts=3", *rendezvous]
    with (
        started(command(output, *node, "--local-addr=127.0.0.1"), GLOO_SOCKET_IFNAME="lo") as first,
        started(command(output, *node, "--local-addr=127.0.0.2"), GLOO_SOCKET_IFNAME="lo") as second,
    ):
        kill_a_worker(second, output, after_step=12)
        for torchrun in (first, second):
            printed, _ = torchrun.communicate(timeout=500)
            assert torchrun.returncode == 0, printed
    assert_same_run(uninterrupted, output)
