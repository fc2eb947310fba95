"""Schedules against the recorded ones, and their corners."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sslight.optim import cosine_schedule, linear_warmup, multistep_schedule
from tests.golden import assert_near, read_arrays, read_json

CASES = read_json("schedules/cases.json")
VALUES = read_arrays("schedules/schedules.npz")


@pytest.mark.parametrize("case", CASES["step_schedules"], ids=lambda case: case["name"])
def test_schedules_by_step_are_the_recorded_ones(case: dict[str, Any]) -> None:
    iters, total = case["iters"], case["epochs"] * case["iters"]
    if case["kind"] == "cosine":
        values = [
            cosine_schedule(
                step,
                base=case["base"],
                final=case["final"],
                total_steps=total,
                warmup_steps=case["warmup_epochs"] * iters,
                warmup_start=case["start_warmup"],
            )
            for step in range(total)
        ]
    else:
        milestones = [epoch * iters for epoch in case["milestones"]]
        values = [
            multistep_schedule(step, base=case["base"], milestones=milestones, gamma=case["gamma"])
            for step in range(total)
        ]
    assert_near(torch.tensor(values, dtype=torch.float64), VALUES[f"step.{case['name']}"], 1e-12)


@pytest.mark.parametrize("case", CASES["teacher_temperature"], ids=lambda case: case["name"])
def test_teacher_temperatures_are_the_recorded_ones(case: dict[str, Any]) -> None:
    values = [
        linear_warmup(
            epoch,
            start=case["warmup_teacher_temp"],
            end=case["teacher_temp"],
            num_steps=case["warmup_epochs"],
        )
        for epoch in range(case["total_epochs"])
    ]
    assert_near(torch.tensor(values, dtype=torch.float64), VALUES[f"teacher_temp.{case['name']}"], 1e-12)


@pytest.mark.parametrize("name", CASES["published_recipes"])
def test_published_recipes_have_the_recorded_rates(name: str) -> None:
    case = CASES["published_recipes"][name]
    total, warmup = case["total_steps"], case["warmup_epochs"] * case["iters_per_epoch"]
    decay = (0.04, 0.4) if "vit" in name else (1e-6, 1e-6)
    momentum = 0.99 if name.startswith("swav") else 0.996
    for i, step in enumerate(case["step"]):
        lr = cosine_schedule(
            step,
            base=case["peak_lr"],
            final=case["min_lr"],
            total_steps=total,
            warmup_steps=warmup,
            warmup_start=case["start_warmup"],
        )
        assert lr == pytest.approx(case["lr"][i], rel=1e-12)
        weight_decay = cosine_schedule(step, base=decay[0], final=decay[1], total_steps=total)
        assert weight_decay == pytest.approx(case["weight_decay"][i], rel=1e-12)
        kept = cosine_schedule(step, base=momentum, final=1.0, total_steps=total)
        assert kept == pytest.approx(case["teacher_momentum"][i], rel=1e-12)
    for epoch, value in zip(case.get("teacher_temp_epoch", []), case.get("teacher_temp", []), strict=True):
        warmup_epochs = 30 if "vit" in name else 50
        assert linear_warmup(epoch, start=0.04, end=0.07, num_steps=warmup_epochs) == pytest.approx(value, rel=1e-12)


def test_a_run_may_end_within_the_warm_up_of_the_temperature() -> None:
    assert linear_warmup(1, start=0.04, end=0.07, num_steps=50) == pytest.approx(0.04 + 0.03 / 49)


def test_the_multistep_schedule_warms_up_too() -> None:
    values = [
        multistep_schedule(step, base=1.0, milestones=[5, 7], gamma=0.1, warmup_steps=3, warmup_start=0.2)
        for step in range(9)
    ]
    assert values == pytest.approx([0.2, 0.6, 1.0, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01])


def test_after_its_end_the_cosine_stays_at_its_final_value() -> None:
    assert cosine_schedule(10, base=1.0, final=0.25, total_steps=10) == 0.25
    assert cosine_schedule(5, base=1.0, final=0.25, total_steps=4, warmup_steps=5) == 0.25


@given(
    total=st.integers(1, 60),
    warmup=st.integers(0, 60),
    base=st.floats(0.1, 2.0),
    final=st.floats(0.0, 0.1),
)
def test_the_rate_rises_to_its_peak_and_then_falls(total: int, warmup: int, base: float, final: float) -> None:
    values = [
        cosine_schedule(step, base=base, final=final, total_steps=total, warmup_steps=warmup) for step in range(total)
    ]
    rising, falling = values[:warmup], values[warmup:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert all(0.0 <= value <= base * (1 + 1e-12) for value in values)
