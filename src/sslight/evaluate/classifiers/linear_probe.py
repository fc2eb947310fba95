"""The linear protocol of papers: classifiers trained on random crops that pass through the frozen backbone."""

import copy
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from sslight.optim import LARS, cosine_schedule, parameter_groups
from sslight.train.machine.distributed import rank_and_size, sum_over_processes

PUBLISHED_RATE = {"lars": 0.05, "sgd": 0.01}
"""Learning rate for 256 images of the published protocol."""

_PUBLISHED_BATCH = {"lars": 4096, "sgd": 1024}  # 8 GPUs

_RATE_FACTORS = (1, 3, 10, 30, 100, 300, 1000, 3000)
_PUBLISHED_PASSES = 1_281_167 * 100  # images of ImageNet-1k, epochs
_LEAST_SPAN = 30
_MOMENTUM = 0.9


def default_rates(optimizer: Literal["lars", "sgd"], *, image_passes: int) -> list[float]:
    """The learning rates for 256 images that are tried if none are given: the published one and larger ones.

    With rates in proportion to the batch, what a run moves the weights by goes with its images times epochs
    (``image_passes``). The rates reach to ten times what makes up for having fewer than the published run, and at
    least to 30 times the published one.
    """
    largest = max(_LEAST_SPAN, 10 * _PUBLISHED_PASSES / image_passes)
    return [round(factor * PUBLISHED_RATE[optimizer], 6) for factor in _RATE_FACTORS if factor <= largest]


def published_batch(optimizer: Literal["lars", "sgd"], num_images: int) -> int:
    """Images in a step of the published protocol, but not more than an eighth of the training images."""
    return min(_PUBLISHED_BATCH[optimizer], max(1, num_images // 8))


def new_linear(in_features: int, num_classes: int, *, seed: int) -> nn.Linear:
    """A new classifier: weights normal with deviation 0.01, biases 0, as in the original."""
    layer = nn.Linear(in_features, num_classes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.normal_(0, 0.01, generator=generator)
        layer.bias.zero_()
    return layer


class LinearProbes(nn.Module):
    """Classifiers with different learning rates, trained side by side on the same features.

    For each rate there are two: ``final[i]`` learns from every image, and ``trial[i]`` from all but those that
    are held out, by which the rate is chosen. With one rate there is nothing to choose and no trial. All start as
    copies of ``first``; ``rates`` are peak learning rates as used (scaled with the batch). LARS leaves biases alone;
    nothing decays.
    """

    def __init__(self, rates: Sequence[float], first: nn.Linear, *, optimizer: Literal["lars", "sgd"]) -> None:
        super().__init__()
        self.rates = tuple(rates)
        self.final = nn.ModuleList(copy.deepcopy(first) for _ in rates)
        self.trial = nn.ModuleList(copy.deepcopy(first) for _ in rates if len(rates) > 1)
        groups = [
            {**group, "peak_lr": rate}
            for layers in (self.final, self.trial)
            for layer, rate in zip(layers, rates, strict=False)
            for group in parameter_groups(layer)
        ]
        kind = {"lars": LARS, "sgd": torch.optim.SGD}[optimizer]
        self.optimizer: Optimizer = kind(groups, lr=0.0, momentum=_MOMENTUM)

    def set_rates(self, step: int, *, total_steps: int, min_lr: float) -> None:
        """The rates of the cosine schedule at a step; the original sets them at the first step of each epoch only."""
        for group in self.optimizer.param_groups:
            group["lr"] = cosine_schedule(step, base=group["peak_lr"], final=min_lr, total_steps=total_steps)

    def forward(self, features: Tensor, labels: Tensor, held_out: Tensor) -> tuple[Tensor, Tensor]:
        """The cross-entropies of all classifiers; their mean over processes is that over the images of all of them.

        The classifiers share nothing, so the gradient of the sum of all losses is each one's own. Features are
        ``[B, D]`` of this process (B may be 0 where another has some), labels ``[B]``, and ``held_out [B]`` says from
        which images the trials do not learn. Returns the losses of the final classifiers ``[rates]`` and of the
        trials, ``[rates]`` or ``[0]``.
        """
        with torch.autocast(features.device.type, enabled=False):
            counts = torch.stack([torch.tensor(len(labels), device=labels.device), (~held_out).sum()])
            counts = counts.to(features.dtype)
            sum_over_processes(counts)
            counts = counts.clamp(min=1) / rank_and_size()[1]
            kept, kept_labels = features[~held_out], labels[~held_out]
            final = [F.cross_entropy(layer(features), labels, reduction="sum") / counts[0] for layer in self.final]
            trial = [F.cross_entropy(layer(kept), kept_labels, reduction="sum") / counts[1] for layer in self.trial]
        return torch.stack(final), torch.stack(trial) if trial else features.new_zeros(0)

    @torch.no_grad()
    def choose(self, features: Tensor, labels: Tensor) -> tuple[int, list[float]]:
        """The rate whose trial is right most often on held-out images, and the accuracies (%) of all trials.

        Of equals the smallest rate wins. A classifier that diverged (NaN) is never right.
        """
        accuracies = []
        for layer in self.trial:
            logits = layer(features)
            right = (logits.argmax(1) == labels) & logits.isfinite().all(1)
            accuracies.append(100 * int(right.sum()) / len(right))  # the host waits for the device
        return max(range(len(accuracies)), key=accuracies.__getitem__), accuracies
