"""What is not finite is found before it is saved: weights, running statistics, and losses that nobody looks at."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from sslight.api.pretrain import run_pretraining
from sslight.config import PretrainSettings
from sslight.methods.dino import DINO
from sslight.methods.method import StepOutput
from sslight.pretraining import task
from sslight.train import TrainingStopped, loop
from sslight.train.finite import FiniteWatch, all_finite

Settings = Callable[..., PretrainSettings]


@pytest.mark.parametrize("name", ["0.weight", "1.running_mean", "1.running_var"])
def test_one_infinite_number_in_a_weight_or_a_running_statistic_is_found(name: str) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    assert all_finite(module)
    module.state_dict()[name].view(-1)[-1] = torch.inf
    assert not all_finite(module)


def test_running_statistics_that_overflow_are_not_saved(tiny: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    build = task.build_pretraining_task

    def overflowing(*args: Any, **kwargs: Any) -> Any:
        built, options = build(*args, **kwargs)
        statistics = next(value for key, value in built.module.state_dict().items() if key.endswith("running_var"))
        object.__setattr__(built, "end_step", lambda step: statistics.fill_(torch.inf))
        return built, options

    monkeypatch.setattr("sslight.api.pretrain.build_pretraining_task", overflowing)
    settings = tiny()
    with pytest.raises(TrainingStopped, match="the weights or buffers became non-finite by step 4"):
        run_pretraining(settings)
    assert settings.output is not None
    assert not (settings.output / "checkpoints" / "last.pt").exists()


def test_with_scaled_gradients_in_several_processes_the_loss_is_looked_at_where_a_checkpoint_is_written(
    tiny: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scaled(FiniteWatch):
        """As with precision=16 in two processes: neither loss nor gradient is looked at."""

        def __init__(self, device: torch.device, **_: Any) -> None:
            super().__init__(device, world_size=2, scaled=True)

    real = DINO.forward

    def broken(self: DINO, *inputs: Any) -> StepOutput:
        output = real(self, *inputs)
        return replace(output, loss=output.loss * torch.nan)

    monkeypatch.setattr(DINO, "forward", broken)
    monkeypatch.setattr(loop, "FiniteWatch", Scaled)
    settings = tiny(log_every=1000, steps=5, checkpoint__every_steps=2)
    with pytest.raises(TrainingStopped, match="the loss became nan in the 1000 steps before step 2"):
        run_pretraining(settings)
    assert settings.output is not None
    assert not (settings.output / "checkpoints" / "last.pt").exists()
