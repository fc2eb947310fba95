"""LARS against the recorded steps of the original's two variants, and against its formula."""

import copy

import pytest
import torch
from torch import nn

from sslight.optim import LARS
from tests.golden import assert_near, read_arrays, read_json

CASES = read_json("lars/cases.json")


def recorded_groups(case: dict[str, object], params: dict[str, nn.Parameter]) -> list[dict[str, object]]:
    """One group a tensor, with the original's rules for decay and adaptation as group keys."""
    groups: list[dict[str, object]] = []
    for name, shape, kind in case["params"]:  # type: ignore[attr-defined]
        if case["impl"] == "pretrain":
            factor = {"reg": 1.0, "dw": case["wd_factor_dw"], "bias": case["wd_factor_bias"]}[kind]
            exclude = {"reg": False, "dw": case["exclude_dw"], "bias": case["exclude_bias"]}[kind]
            lr_factor = 1.0
        else:  # the classification variant looks at the tensor itself; only the head's rate has a factor
            factor = 0.0 if kind == "nreg" or len(shape) == 1 else 1.0
            exclude = len(shape) == 1
            lr_factor = case["lr_factor"] if kind == "cls" else 1.0  # type: ignore[assignment]
        groups.append({"params": [params[name]], "factor": factor, "lars_exclude": exclude, "lr_factor": lr_factor})
    return groups


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", CASES)
def test_every_step_is_the_recorded_one(name: str, dtype: torch.dtype, tolerance: float) -> None:
    case, arrays = CASES[name], read_arrays(f"lars/{name}.npz")
    params = {p[0]: nn.Parameter(arrays[f"in.param.{p[0]}"].to(dtype)) for p in case["params"]}
    optimizer = LARS(recorded_groups(case, params), lr=0.0, momentum=case["momentum"], eta=case["eta"])
    for step in range(case["steps"]):
        for key, parameter in params.items():
            grad = arrays.get(f"in.grad.{step}.{key}")
            parameter.grad = None if grad is None else grad.to(dtype)
        for group in optimizer.param_groups:
            group["lr"] = case["lr"][step] * group["lr_factor"]
            group["weight_decay"] = case["wd"][step] * group["factor"]
        optimizer.step()
        for key, parameter in params.items():
            assert_near(parameter, arrays[f"out.param.{step}.{key}"], tolerance, f"{key} at step {step}")
            buffer = arrays.get(f"out.mu.{step}.{key}")
            if buffer is None:
                assert "momentum_buffer" not in optimizer.state[parameter]
            else:
                assert_near(optimizer.state[parameter]["momentum_buffer"], buffer, tolerance, f"μ of {key}")


def test_a_tensor_without_gradient_is_left_alone() -> None:
    parameter = nn.Parameter(torch.ones(3, 3))
    optimizer = LARS([parameter], lr=1.0, weight_decay=0.1)
    optimizer.step()
    assert torch.equal(parameter, torch.ones(3, 3))
    assert not optimizer.state[parameter]


def test_one_step_moves_a_tensor_by_lr_times_eta_times_its_norm() -> None:
    parameter = nn.Parameter(torch.randn(4, 5))
    before = parameter.detach().clone()
    optimizer = LARS([parameter], lr=2.0, eta=0.01)
    parameter.grad = 1000 * torch.randn(4, 5)
    optimizer.step()
    moved = (parameter.detach() - before).norm() / before.norm()
    assert float(moved) == pytest.approx(2.0 * 0.01, rel=1e-5)


def test_its_state_can_be_saved_and_restored() -> None:
    def run(optimizer: LARS, parameter: nn.Parameter, seed: int) -> None:
        parameter.grad = torch.randn(3, 2, generator=torch.Generator().manual_seed(seed))
        optimizer.step()

    first = nn.Parameter(torch.ones(3, 2))
    optimizer = LARS([first], lr=0.3)
    run(optimizer, first, 0)
    second = nn.Parameter(first.detach().clone())
    restored = LARS([second], lr=0.9)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(optimizer, first, 1)
    run(restored, second, 1)
    assert torch.equal(first, second)


def test_a_closure_is_evaluated_with_gradients() -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([parameter], lr=0.1)

    def closure() -> float:
        loss = (parameter**2).sum()
        torch.autograd.backward(loss)
        return float(loss.detach())

    assert optimizer.step(closure) == 4.0
    assert float(parameter.detach().max()) < 1.0


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"lr": 1.0, "momentum": 1.0}, {"lr": 1.0, "eta": 0.0}])
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{list(wrong)[-1]}="):
        LARS([nn.Parameter(torch.ones(1))], **wrong)
