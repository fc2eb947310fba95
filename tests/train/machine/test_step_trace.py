"""Traces of some steps."""

import json
from collections.abc import Callable

import pytest

from sslight.api.pretrain import run_pretraining
from sslight.config import PretrainSettings


def test_the_steps_that_are_asked_for_are_traced(tiny: Callable[..., PretrainSettings]) -> None:
    result = run_pretraining(tiny(profile=2, steps=13))
    trace = json.loads((result.output / "trace.json").read_text())["traceEvents"]
    assert sum(event["name"] == "Optimizer.step#LARS.step" for event in trace) == 2


def test_without_the_setting_there_is_no_trace(tiny: Callable[..., PretrainSettings]) -> None:
    assert not (run_pretraining(tiny()).output / "trace.json").exists()


def test_a_trace_that_would_not_begin_is_refused(tiny: Callable[..., PretrainSettings]) -> None:
    with pytest.raises(ValueError, match=r"profile=3 would have no effect: .* the run has 4: train 13 steps or more"):
        run_pretraining(tiny(profile=3, steps=4))
