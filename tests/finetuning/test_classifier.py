"""Fine-tuning: against the original's recorded run, and against the update written out by hand.

The recorded run starts from a checkpoint of 9 MB. ``semi_mobilenet_v2_student.npz`` holds its change from the
recorded backbone in 6 bits a weight, which the first step's outputs show in the sixth digit; later steps of
a network with batch norm at batch 8 amplify that, so there the exact update is checked by itself.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslight.backbones import build_backbone
from sslight.evaluate.protocols.semi import published_epochs
from sslight.finetuning.classifier import Classifier, carries_over
from sslight.finetuning.task import fine_tuning_optimizer, mean_cross_entropy, set_fine_tuning_rate
from tests.backbones.recorded import as_input, recorded_backbone
from tests.golden import assert_near, part, read_arrays, read_json

CROPS = read_arrays("trajectories/crops.npz")
STUDENT = read_arrays("evaluation/semi_mobilenet_v2_student.npz")


def fine_tuning_step(
    classifier: Classifier, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> Tensor:
    optimizer.zero_grad()
    loss = mean_cross_entropy(classifier(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


def recorded_student() -> nn.Module:
    backbone = recorded_backbone("mobilenet_v2")
    state = backbone.state_dict()
    for name, change in part(STUDENT, "backbone.change.").items():
        state[name] += change * STUDENT[f"backbone.unit.{name}"]
    backbone.load_state_dict(state | part(STUDENT, "backbone.exact."))
    return backbone


def recorded_classifier(dtype: torch.dtype) -> Classifier:
    classifier = Classifier(recorded_student(), 10, projection=part(STUDENT, "projection."))
    last = part(read_arrays("evaluation/semi_mobilenet_v2_sgd_init.npz"), "classifier.fc3.")
    classifier.head[-1].load_state_dict(last)
    return classifier.to(dtype).train()


def test_the_recorded_run_begins_the_same() -> None:
    case, expected = (
        read_json("evaluation/semi_mobilenet_v2_sgd.json"),
        read_arrays("evaluation/semi_mobilenet_v2_sgd_expected.npz"),
    )
    schedule, classifier = case["settings"]["schedule"], recorded_classifier(torch.float64)
    optimizer = fine_tuning_optimizer(classifier, head_lr_factor=case["settings"]["head_lr_factor"])
    for step, (tolerance, recorded) in enumerate(zip((1e-4, 5e-3), case["float64"]["steps"], strict=False)):
        set_fine_tuning_rate(
            optimizer,
            0,
            peak=schedule["peak_lr"],
            min_lr=schedule["min_lr"],
            total_steps=schedule["iters_per_epoch"] * schedule["total_epochs"],
        )
        images = as_input(CROPS[f"global.{step}"][0], torch.float64)
        logits = copy.deepcopy(classifier)(images)
        assert_near(logits, expected[f"f64.logits.{step}"], 50 * tolerance, f"logits {step}")
        loss = fine_tuning_step(classifier, optimizer, images, CROPS[f"label.{step}"])
        assert_near(loss, recorded["loss"], tolerance, f"loss {step}")
        assert [optimizer.param_groups[i]["lr"] for i in (-1, 0)] == pytest.approx(
            [recorded["lr"][0], recorded["lr"][1]]
        )


def test_an_epoch_has_the_recorded_rate_of_its_first_step() -> None:
    case = read_json("evaluation/semi_mobilenet_v2_sgd.json")
    classifier = Classifier(nn.Linear(3, 3), 2, projection=TINY_PROJECTION)
    optimizer = fine_tuning_optimizer(classifier, head_lr_factor=5.0)
    for step, recorded in enumerate(case["float64"]["steps"]):
        set_fine_tuning_rate(optimizer, step // 3 * 3, peak=0.01, min_lr=1e-6, total_steps=12)
        rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
        assert rates["head_regularised"] == pytest.approx(recorded["lr"][0], rel=1e-12)
        assert rates["regularised"] == pytest.approx(recorded["lr"][1], rel=1e-12)


TINY_PROJECTION = {"0.weight": torch.randn(4, 3), "0.bias": torch.randn(4), "2.weight": torch.randn(2, 4)}


def test_steps_are_those_of_nesterovs_momentum_written_out() -> None:
    torch.manual_seed(0)
    classifier = Classifier(build_backbone("test_resnet"), 3, seed=1).train()
    by_hand = copy.deepcopy(classifier)
    momentum = {name: torch.zeros_like(value) for name, value in by_hand.named_parameters()}
    optimizer = fine_tuning_optimizer(classifier, head_lr_factor=5.0)
    for step in range(4):
        images, labels = torch.randn(6, 3, 32, 32), torch.randint(0, 3, (6,))
        rate = 0.5e-1 * (1 + float(torch.cos(torch.tensor(torch.pi * step / 4, dtype=torch.float64))))
        set_fine_tuning_rate(optimizer, step, peak=0.1, min_lr=0.0, total_steps=4)
        loss = fine_tuning_step(classifier, optimizer, images, labels)
        expected = F.cross_entropy(by_hand(images), labels)
        torch.testing.assert_close(loss, expected.detach())
        names, parameters = zip(*by_hand.named_parameters(), strict=True)
        for name, parameter, grad in zip(names, parameters, torch.autograd.grad(expected, parameters), strict=True):
            momentum[name] = 0.9 * momentum[name] + grad
            factor = 5.0 if name.startswith("head.") else 1.0
            parameter.data -= factor * rate * (grad + 0.9 * momentum[name])
    for name, value in by_hand.state_dict().items():
        torch.testing.assert_close(classifier.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_hidden_layers_of_the_projection_head_carry_over_and_the_last_layer_is_new() -> None:
    projection = part(STUDENT, "projection.")
    head = Classifier(recorded_backbone("mobilenet_v2"), 7, projection=projection).head
    kinds = [type(layer).__name__ for layer in head]
    assert kinds == ["Linear", "BatchNorm1d", "GELU", "Linear", "BatchNorm1d", "GELU", "Linear"]
    state = head.state_dict()
    for name, value in projection.items():
        if not name.startswith("6."):
            assert torch.equal(state[name], value)
    assert state["6.weight"].shape == (7, 32)
    assert carries_over(projection)
    assert not carries_over(TINY_PROJECTION)
    assert not carries_over(None)


def test_the_new_layer_follows_from_its_seed_and_leaves_the_random_stream_alone() -> None:
    backbone, before = build_backbone("test_resnet"), torch.get_rng_state()
    weights: list[Tensor] = [Classifier(backbone, 7, seed=seed).head.state_dict()["0.weight"] for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(("share", "epochs"), [(0.01, 60), (0.1, 30), (1.0, 30)])
def test_the_length_is_the_published_one(share: float, epochs: int) -> None:
    assert published_epochs(share) == epochs
