"""Semi-supervised fine-tuning of the whole network, with the projection head's layers carried over."""

from collections import OrderedDict
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from sslight.backbones import num_features
from sslight.optim import classification_groups, cosine_schedule, set_rates
from sslight.train.distributed import sum_over_processes

PUBLISHED_BATCH = 1024
"""Images in a step of the published protocol (8 GPUs)."""

_MOMENTUM = 0.9
_FEW_LABELS = 0.05


def published_epochs(share: float) -> int:
    """60 epochs for 1 % of the labels, 30 for 10 %; ``share`` is that of the labels, 0–1."""
    return 60 if share < _FEW_LABELS else 30


def carries_over(projection: Mapping[str, Tensor] | None) -> bool:
    """Whether a projection head has hidden layers with batch norm, as the published protocol needs."""
    return projection is not None and any(key.endswith("running_mean") for key in projection)


class Classifier(nn.Module):
    """A backbone and a classifier on its features.

    Args:
        backbone: The pre-trained backbone; used as it is, not copied.
        num_classes: Number of classes C.
        projection: The MLP of a DINO head, state dict of layers by position; all its linear layers but the
            last, with their batch norm, become the first layers of the classifier, each followed by GELU. None
            for a classifier of one linear layer.
        seed: Of the new linear layer, which starts as PyTorch's do.
    """

    def __init__(
        self, backbone: nn.Module, num_classes: int, *, projection: Mapping[str, Tensor] | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.backbone = backbone
        layers, width = ([], num_features(backbone)) if projection is None else _hidden_layers(projection)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers.append(nn.Linear(width, num_classes))
        self.head = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[B, 3, H, W]`` → logits ``[B, C]``."""
        logits: Tensor = self.head(self.backbone(x))
        return logits


def _hidden_layers(projection: Mapping[str, Tensor]) -> tuple[list[nn.Module], int]:
    """The linear and batch-norm layers before the last linear one, each pair followed by GELU, and their width."""
    linear = sorted(int(key.split(".")[0]) for key, value in projection.items() if value.ndim == 2)
    layers: list[nn.Module] = []
    width = 0
    for position in linear[:-1]:
        width, in_features = projection[f"{position}.weight"].shape
        layers.append(_filled(nn.Linear(in_features, width), projection, position))
        if f"{position + 1}.running_mean" in projection:
            layers.append(_filled(nn.BatchNorm1d(width), projection, position + 1))
        layers.append(nn.GELU())
    return layers, width


def _filled(layer: nn.Module, state: Mapping[str, Tensor], position: int) -> nn.Module:
    layer.load_state_dict(OrderedDict((name, state[f"{position}.{name}"]) for name in layer.state_dict()))
    return layer


def fine_tuning_optimizer(classifier: Classifier, *, head_lr_factor: float) -> Optimizer:
    """SGD with Nesterov momentum 0.9 and without weight decay; the factor is for the whole head."""
    groups = classification_groups(classifier.backbone, classifier.head, head_lr_factor=head_lr_factor)
    return torch.optim.SGD(groups, lr=0.0, momentum=_MOMENTUM, nesterov=True)


def set_fine_tuning_rate(optimizer: Optimizer, step: int, *, peak: float, min_lr: float, total_steps: int) -> None:
    """The rate of the cosine schedule at a step; the original sets it at the first step of each epoch only."""
    rate = cosine_schedule(step, base=peak, final=min_lr, total_steps=total_steps)
    set_rates(optimizer, lr=rate, weight_decay=0.0)


def fine_tuning_step(
    classifier: Classifier, optimizer: Optimizer, images: Tensor, labels: Tensor, *, precision: str = "32"
) -> Tensor:
    """One step on normalised ``images [B, 3, H, W]`` of this process; the mean cross-entropy over all processes."""
    count = torch.tensor(float(len(labels)), device=labels.device)
    sum_over_processes(count)
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        logits = classifier(images)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    loss = F.cross_entropy(logits, labels, reduction="sum") / count
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    for parameter in classifier.parameters():
        if parameter.grad is not None:
            sum_over_processes(parameter.grad)
    optimizer.step()
    loss = loss.detach()
    sum_over_processes(loss)
    return loss
