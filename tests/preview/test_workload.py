"""Pairs and pixels, against the losses and the networks themselves."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sslight.config import load_recipe
from sslight.methods import StepValues, build_method
from sslight.methods.pairs import PairMeans
from sslight.preview.workload import measure_workload


@pytest.mark.parametrize("method", ["dino", "swav", "moco"])
@pytest.mark.parametrize("num_local", [0, 3])
def test_pixels_are_those_that_the_networks_see(method: str, num_local: int) -> None:
    changes: dict[str, Any] = {"dino": {}, "swav": {"swav__queue_size": 0}, "moco": {"moco__queue_size": 16}}[method]
    settings = load_recipe(
        "dino_cnn_sslight_64",
        {
            "method": method,
            "backbone": "test_resnet",
            "batch_size": 8,
            "steps": 4,
            "optim.warmup_epochs": 0.2,
            "views.num_local": num_local,
            "views.global_size": 32,
            **({"views.local_size": 16} if num_local else {}),
            **{key.replace("__", "."): value for key, value in changes.items()},
        },
    )
    method_module = build_method(settings)
    seen = {"trained": 0, "target": 0}

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        trained = any(parameter.requires_grad for parameter in module.parameters())
        seen["trained" if trained else "target"] += inputs[0].shape[0] * inputs[0].shape[2] * inputs[0].shape[3]

    for network in method_module.networks.values():
        network.register_forward_pre_hook(count)
    values = StepValues(momentum=0.9, teacher_temp=0.04)
    method_module.begin_step(values)
    local = torch.randn(num_local * 4, 3, 16, 16) if num_local else None
    method_module(torch.randn(8, 3, 32, 32), local, values)
    workload = measure_workload(settings)
    assert seen == {"trained": 4 * workload.trained_pixels, "target": 4 * workload.target_pixels}
    assert workload.compute == 3 * workload.trained_pixels + workload.target_pixels


@pytest.mark.parametrize(("num_global", "num_local", "weight"), list(product([2, 3], [0, 6], [None, 0.4])))
def test_pairs_and_weights_are_those_of_the_loss(num_global: int, num_local: int, weight: float | None) -> None:
    views = {"num_global": num_global, "num_local": num_local}
    settings = load_recipe("dino_cnn_baseline", {"views": views})
    workload = measure_workload(settings.model_copy(update={"global_pair_weight": weight}))
    pairs = [(g, v) for g in range(num_global) for v in range(num_global + num_local) if g != v]
    assert workload.global_pairs == sum(v < num_global for _, v in pairs)
    assert workload.local_pairs == sum(v >= num_global for _, v in pairs)
    share = (num_global - 1) / (num_global - 1 + num_local)
    loss = PairMeans(torch.tensor(1.0), torch.tensor(0.0) if num_local else None, share).weighted(weight)
    assert workload.global_weight == pytest.approx(loss.item())
    assert workload.global_weight + workload.local_weight == pytest.approx(1)


def test_moco_has_one_key_which_every_other_view_meets() -> None:
    workload = measure_workload(load_recipe("moco_cnn_baseline"))
    assert (workload.global_pairs, workload.local_pairs) == (1, 6)
    assert workload.global_weight == pytest.approx(1 / 7)
    assert workload.target_pixels == 224**2


def test_sslight_costs_a_fifth_more_than_its_baseline() -> None:
    baseline, sslight = (measure_workload(load_recipe(f"dino_cnn_{name}")) for name in ("baseline", "sslight"))
    assert baseline.compute == 3 * (2 * 224**2 + 6 * 96**2) + 2 * 224**2
    assert sslight.compute / baseline.compute == pytest.approx(1.2274, abs=1e-4)
