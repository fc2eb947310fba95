"""The exact linear protocol: against the original's recorded steps, and many classifiers against one."""

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslight.backbones.class_tokens import LastBlocks
from sslight.evaluate.classifiers.linear_probe import LinearProbes, default_rates, new_linear
from tests.backbones.recorded import as_input, recorded_backbone
from tests.golden import assert_near, read_arrays, read_json

CROPS = read_arrays("trajectories/crops.npz")
NOBODY = torch.zeros(8, dtype=torch.bool)


def step(probes: LinearProbes, features: Tensor, labels: Tensor, held_out: Tensor) -> Tensor:
    """One step of all classifiers; the losses of the final ones."""
    probes.optimizer.zero_grad()
    final, trial = probes(features, labels, held_out)
    (final.sum() + trial.sum()).backward()
    probes.optimizer.step()
    return final.detach()  # type: ignore[no-any-return]


def first_layer(dim: int, num_classes: int = 4) -> nn.Linear:
    return new_linear(dim, num_classes, seed=0)


def batches(num: int, dim: int, num_classes: int = 4) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(8, dim, generator=generator), torch.randint(0, num_classes, (8,), generator=generator))
        for _ in range(num)
    ]


@pytest.mark.parametrize("name", ["linear_mobilenet_v2_lars", "linear_vit_tiny_sgd"])
def test_two_epochs_are_the_recorded_ones(name: str) -> None:
    case, expected = read_json(f"evaluation/{name}.json"), read_arrays(f"evaluation/{name}_expected.npz")
    settings, layer = case["settings"], "head" if "vit" in name else "classifier"
    init = read_arrays(f"evaluation/{name}_init.npz")
    backbone: nn.Module = recorded_backbone(case["arch"], torch.float64).eval()
    if settings["vit_last_blocks"] is not None:
        backbone = LastBlocks(backbone, settings["vit_last_blocks"])
    first = nn.Linear(init[f"{layer}.weight"].shape[1], settings["classes"])
    first.load_state_dict({"weight": init[f"{layer}.weight"], "bias": init[f"{layer}.bias"]})
    schedule, peak = settings["schedule"], settings["schedule"]["peak_lr"]
    # Another rate and its trials train beside the recorded one and must not disturb it.
    probes = LinearProbes([peak, 10 * peak], first.double(), optimizer=settings["optimizer"]["kind"])
    per_epoch, total = schedule["iters_per_epoch"], schedule["iters_per_epoch"] * schedule["total_epochs"]
    for number, recorded in enumerate(case["float64"]["steps"]):
        if number % per_epoch == 0:
            probes.set_rates(number, total_steps=total, min_lr=schedule["min_lr"])
        images, labels = CROPS[f"global.{number}"][0], CROPS[f"label.{number}"]
        with torch.no_grad():
            features = backbone(as_input(images, torch.float64))
        assert_near(probes.final[0](features), expected[f"f64.logits.{number}"], 1e-6, f"logits {number}")
        losses = step(probes, features, labels, NOBODY)
        assert_near(losses[0], recorded["loss"], 1e-9, f"loss {number}")
        assert probes.optimizer.param_groups[0]["lr"] == pytest.approx(recorded["lr"][0], rel=1e-12)
        if f"f64.after.{number}.{layer}.weight" in expected:
            for part, value in probes.final[0].state_dict().items():
                assert_near(value, expected[f"f64.after.{number}.{layer}.{part}"], 1e-6, f"{part} after step {number}")
    with torch.no_grad():
        features = backbone(as_input(CROPS["global.0"][0], torch.float64))
    assert_near(probes.final[0](features), expected["f64.final_eval_logits"], 1e-6, "logits after training")


@pytest.mark.parametrize("optimizer", ["lars", "sgd"])
def test_each_classifier_learns_as_if_it_were_alone(optimizer: Literal["lars", "sgd"]) -> None:
    rates = [0.1, 1.0, 3.0]
    together = LinearProbes(rates, first_layer(6), optimizer=optimizer)
    alone = [LinearProbes([rate], first_layer(6), optimizer=optimizer) for rate in rates]
    for number, (features, labels) in enumerate(batches(5, 6)):
        for probes in (together, *alone):
            probes.set_rates(number, total_steps=5, min_lr=1e-6)
            step(probes, features, labels, torch.arange(8) < 3)
    for layer, other in zip(together.final, alone, strict=True):
        assert not other.trial
        for name, value in other.final[0].state_dict().items():
            torch.testing.assert_close(layer.state_dict()[name], value)


def test_trials_never_see_what_is_held_out_and_the_final_classifiers_see_all() -> None:
    held_out = torch.arange(8) < 3
    states = []
    for change in (0, 1):
        probes = LinearProbes([0.5, 1.0], first_layer(6), optimizer="sgd")
        probes.set_rates(0, total_steps=9, min_lr=0)
        for features, labels in batches(4, 6):
            step(probes, features, torch.where(held_out, (labels + change) % 4, labels), held_out)
        states.append((probes.trial.state_dict(), probes.final.state_dict()))
    for name, value in states[0][0].items():
        assert torch.equal(value, states[1][0][name])
    assert any(not torch.equal(value, states[1][1][name]) for name, value in states[0][1].items())


def test_the_best_trial_is_chosen_and_a_diverged_one_never() -> None:
    probes = LinearProbes([0.1, 1.0, 2.0], first_layer(2, num_classes=2), optimizer="sgd")
    features, labels = torch.eye(2), torch.tensor([0, 1])
    for layer, scale in zip(probes.trial, (-1.0, 1.0, float("nan")), strict=True):
        layer.load_state_dict({"weight": scale * torch.eye(2), "bias": torch.zeros(2)})
    assert probes.choose(features, labels) == (1, [0.0, 100.0, 0.0])


def test_new_classifiers_start_as_published_and_rates_begin_with_the_published_one() -> None:
    layer = new_linear(2000, 50, seed=3)
    assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.01)
    assert not layer.bias.any()
    imagenet = 1_281_167 * 100
    assert default_rates("lars", image_passes=imagenet) == [0.05, 0.15, 0.5, 1.5]
    assert default_rates("sgd", image_passes=imagenet // 100) == [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]
    assert default_rates("lars", image_passes=1)[-1] == 150


def test_the_loss_is_the_mean_cross_entropy() -> None:
    probes = LinearProbes([1.0], first_layer(6), optimizer="sgd")
    features, labels = batches(1, 6)[0]
    expected = F.cross_entropy(first_layer(6)(features), labels)
    probes.set_rates(0, total_steps=1, min_lr=0)
    torch.testing.assert_close(step(probes, features, labels, NOBODY)[0], expected.detach())
