"""Clocks: parts are told apart, and only waiting counts as waiting."""

import time

import pytest
import torch
from torch import nn

from sslight.train.machine.clock import DataWait, StepClock


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is a second after the one before."""
    now = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(now)))


@pytest.mark.usefixtures("ticks")
def test_a_part_within_another_counts_for_itself_only() -> None:
    clock = StepClock(runs=True)
    network = nn.Linear(2, 2)
    clock.watch(network, "student forward")
    clock.begin_step()  # at 0
    with clock.part("loss"):  # 1
        network(torch.zeros(1, 2))  # 2 to 3
        network(torch.zeros(1, 2))  # 4 to 5
    with clock.part("backward"):  # the loss ended at 6; 7 to 8
        pass
    clock.end_step()  # 9
    assert clock.steps == [{"loss": 3.0, "student forward": 2.0, "backward": 1.0, "whole": 9.0}]


def test_a_clock_that_does_not_run_notes_nothing() -> None:
    clock = StepClock()
    clock.begin_step()
    with clock.part("loss"):
        pass
    clock.end_step()
    assert clock.steps == []


@pytest.mark.usefixtures("ticks")
def test_on_a_cpu_waiting_is_from_asking_to_getting() -> None:
    wait = DataWait(torch.device("cpu"))
    for _ in range(3):
        with wait.measured():
            pass
    assert wait.seconds() == 3.0


@pytest.mark.gpu
def test_a_gpu_that_is_still_busy_does_not_wait() -> None:
    device = torch.device("cuda")
    matrix = torch.randn(8192, 8192, device=device)
    torch.cuda.synchronize()
    busy, idle = DataWait(device), DataWait(device)
    for _ in range(100):
        matrix @ matrix
    with busy.measured():
        time.sleep(0.01)
    torch.cuda.synchronize()
    with idle.measured():
        time.sleep(0.05)
    assert busy.seconds() < 0.005
    assert idle.seconds() > 0.045
