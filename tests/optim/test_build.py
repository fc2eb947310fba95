"""The optimiser of the settings, and its rates."""

import pytest
import torch
from torch import nn

from sslight.config import OptimSettings
from sslight.optim import LARS, build_optimizer, parameter_groups, set_rates


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8))


@pytest.mark.parametrize(("name", "kind"), [("lars", LARS), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_the_settings_choose_the_optimiser(name: str, kind: type) -> None:
    settings = OptimSettings.model_validate({"name": name, "momentum": 0.8, "weight_decay": 0.04})
    optimizer = build_optimizer(settings, parameter_groups(network()))
    assert type(optimizer) is kind
    assert [group["name"] for group in optimizer.param_groups] == [
        "regularised",
        "depthwise",
        "unregularised",
    ]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.04, 0.0, 0.0]
    for group in optimizer.param_groups:
        if name == "adamw":
            assert group["betas"] == (0.9, 0.999)
        else:
            assert group["momentum"] == 0.8


def test_rates_reach_every_group_times_its_factors() -> None:
    groups = [
        *parameter_groups(network()),
        *parameter_groups(nn.Linear(8, 2), lr_factor=3.0, name_prefix="head_"),
    ]
    optimizer = build_optimizer(OptimSettings(), groups)
    set_rates(optimizer, lr=0.5, weight_decay=0.1)
    rates = {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert rates == {
        "regularised": (0.5, 0.1),
        "depthwise": (0.5, 0.0),
        "unregularised": (0.5, 0.0),
        "head_regularised": (1.5, 0.1),
        "head_unregularised": (1.5, 0.0),
    }


@pytest.mark.parametrize("name", ["lars", "adamw", "sgd"])
def test_every_optimiser_lowers_a_loss(name: str) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(6, 1, bias=False), torch.randn(64, 6)
    target = x @ torch.randn(6, 1)
    optimizer = build_optimizer(OptimSettings.model_validate({"name": name}), parameter_groups(model))
    losses = []
    for _ in range(40):
        set_rates(optimizer, lr=50.0 if name == "lars" else 0.05, weight_decay=0.0)
        loss = ((model(x) - target) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_fused_optimiser_takes_the_same_steps(name: str) -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(7, 5), torch.randn(4, 7, 5)
    ends = []
    for fused in (False, True):
        model = nn.Linear(5, 7, bias=False)
        model.weight.data.copy_(start)
        optimizer = build_optimizer(OptimSettings.model_validate({"name": name}), parameter_groups(model), fused=fused)
        assert optimizer.defaults["fused"] is fused
        for gradient in gradients:
            set_rates(optimizer, lr=0.1, weight_decay=0.1)
            model.weight.grad = gradient.clone()
            optimizer.step()
        ends.append(model.weight.detach())
    torch.testing.assert_close(*ends)
