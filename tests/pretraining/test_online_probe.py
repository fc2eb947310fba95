"""The online linear probe learns from the features."""

from collections.abc import Callable

import torch

from sslight.config import PretrainSettings
from sslight.methods import StepValues, build_method
from sslight.pretraining.online_probe import MethodWithProbe

VALUES = StepValues(momentum=0.99, teacher_temp=0.04, freeze_last_layer=False, use_queue=False)


def test_the_probe_learns_to_tell_images_apart_by_their_features(tiny: Callable[..., PretrainSettings]) -> None:
    torch.manual_seed(0)
    method = build_method(tiny())
    model = MethodWithProbe(method, num_features=method.student.head.mlp[0].in_features, num_classes=4)  # type: ignore
    labels = torch.arange(16) % 4
    images = torch.rand(4, 3, 32, 32)[labels].repeat(2, 1, 1, 1)
    optimizer = torch.optim.Adam(model.probe.parameters(), lr=0.05)  # type: ignore[union-attr]
    losses, accuracies = [], []
    for _ in range(60):
        out = model(images, torch.rand(2 * 16, 3, 16, 16), labels, VALUES)
        model.zero_grad()
        out["loss"].backward()
        optimizer.step()
        losses.append(float(out["scalars"]["probe_loss"]))
        accuracies.append(float(out["scalars"]["probe_top1"]))
    assert losses[-1] < 0.2 * losses[0]
    assert accuracies[-1] == 100.0
