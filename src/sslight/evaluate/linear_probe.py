"""The exact linear protocol: classifiers trained on random crops that pass through the frozen backbone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from sslight.optim import LARS, cosine_schedule, parameter_groups
from sslight.train.distributed import sum_over_processes

PUBLISHED_RATE = {"lars": 0.05, "sgd": 0.01}
"""Learning rate for 256 images of the published protocol."""

PUBLISHED_BATCH = {"lars": 4096, "sgd": 1024}
"""Images in a step of the published protocol (8 GPUs)."""

_RATE_FACTORS = (1, 3, 10, 30, 100, 300, 1000, 3000)
_PUBLISHED_PASSES = 1_281_167 * 100  # images of ImageNet-1k, epochs
_LEAST_SPAN = 30
_MOMENTUM = 0.9


def default_rates(optimizer: Literal["lars", "sgd"], *, image_passes: int) -> list[float]:
    """The learning rates for 256 images that are tried if none are given: the published one and larger ones.

    With rates in proportion to the batch, what a run moves the weights by goes with its images times epochs.
    The rates reach to ten times what makes up for having fewer than the published run, and at least to 30
    times the published one.

    Args:
        optimizer: Its published rate is the smallest.
        image_passes: Training images times epochs.
    """
    largest = max(_LEAST_SPAN, 10 * _PUBLISHED_PASSES / image_passes)
    return [round(factor * PUBLISHED_RATE[optimizer], 6) for factor in _RATE_FACTORS if factor <= largest]


def new_linear(in_features: int, num_classes: int, *, seed: int) -> nn.Linear:
    """A new classifier: weights normal with deviation 0.01, biases 0, as in the original."""
    layer = nn.Linear(in_features, num_classes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.normal_(0, 0.01, generator=generator)
        layer.bias.zero_()
    return layer


@dataclass(frozen=True)
class LinearProbes:
    """Classifiers with different learning rates, trained side by side on the same features.

    For each rate there are two: ``final[i]`` learns from every image, and ``trial[i]`` from all but those that
    are held out, by which the rate is chosen. With one rate there is nothing to choose and no trial.

    Attributes:
        rates: Peak learning rates as used (scaled with the batch).
        final, trial: The classifiers.
        optimizer: One over all of them.
    """

    rates: tuple[float, ...]
    final: nn.ModuleList
    trial: nn.ModuleList
    optimizer: Optimizer

    @classmethod
    def build(
        cls,
        rates: Sequence[float],
        first: nn.Linear,
        *,
        optimizer: Literal["lars", "sgd"],
        device: torch.device | str = "cpu",
    ) -> "LinearProbes":
        """All classifiers start as copies of ``first``. LARS leaves biases alone; nothing decays."""

        def copies(number: int) -> nn.ModuleList:
            layers = nn.ModuleList()
            for _ in range(number):
                layer = nn.Linear(first.in_features, first.out_features, dtype=first.weight.dtype)
                layer.load_state_dict(first.state_dict())
                layers.append(layer)
            return layers.to(device)

        final, trial = copies(len(rates)), copies(len(rates) if len(rates) > 1 else 0)
        groups = [
            {**group, "peak_lr": rate}
            for layers in (final, trial)
            for layer, rate in zip(layers, rates, strict=False)
            for group in parameter_groups(layer)
        ]
        built: Optimizer
        match optimizer:
            case "lars":
                built = LARS(groups, lr=0.0, momentum=_MOMENTUM)
            case "sgd":
                built = torch.optim.SGD(groups, lr=0.0, momentum=_MOMENTUM)
        return cls(tuple(rates), final, trial, built)

    def set_rates(self, step: int, *, total_steps: int, min_lr: float) -> None:
        """The rates of the cosine schedule at a step; the original sets them at the first step of each epoch only."""
        for group in self.optimizer.param_groups:
            group["lr"] = cosine_schedule(step, base=group["peak_lr"], final=min_lr, total_steps=total_steps)

    def step(self, features: Tensor, labels: Tensor, held_out: Tensor) -> Tensor:
        """One step of all classifiers on the features of this process.

        Args:
            features: ``[B, D]``, B may be 0 where another process has some.
            labels: ``[B]``.
            held_out: ``[B]`` bool, images from which the trials do not learn.

        Returns:
            The mean cross-entropy of each final classifier over the images of all processes, ``[rates]``.
        """
        counts = torch.stack([torch.tensor(len(labels), device=labels.device), (~held_out).sum()]).to(features.dtype)
        sum_over_processes(counts)
        counts = counts.clamp(min=1)
        final_losses = torch.stack(
            [F.cross_entropy(layer(features), labels, reduction="sum") / counts[0] for layer in self.final]
        )
        kept, kept_labels = features[~held_out], labels[~held_out]
        trial_losses = [F.cross_entropy(layer(kept), kept_labels, reduction="sum") / counts[1] for layer in self.trial]
        self.optimizer.zero_grad()
        # The classifiers share nothing, so the gradient of the sum is each one's own.
        (final_losses.sum() + sum(trial_losses)).backward()  # type: ignore[no-untyped-call]
        for layer in (*self.final, *self.trial):
            for parameter in layer.parameters():
                assert parameter.grad is not None
                sum_over_processes(parameter.grad)
        self.optimizer.step()
        losses = final_losses.detach()
        sum_over_processes(losses)
        return losses

    @torch.no_grad()
    def choose(self, features: Tensor, labels: Tensor) -> tuple[int, list[float]]:
        """The rate whose trial is right most often on held-out images, and the accuracies (%) of all trials.

        Of equals the smallest rate wins. A classifier that diverged (NaN) is never right.
        """
        if not len(self.trial):
            return 0, []
        accuracies = []
        for layer in self.trial:
            logits = layer(features)
            right = (logits.argmax(1) == labels) & logits.isfinite().all(1)
            accuracies.append(100 * int(right.sum()) / len(right))  # the host waits for the device
        return max(range(len(accuracies)), key=accuracies.__getitem__), accuracies
