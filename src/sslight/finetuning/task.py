"""The supervised task: a classifier is trained on random crops, all of it or the head alone."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from sslight.backbones import batch_norms
from sslight.data import CropBatch, CropLoader
from sslight.finetuning.classifier import Classifier
from sslight.optim import classification_groups, cosine_schedule, set_rates
from sslight.train.machine.devices import synchronize_batch_norm
from sslight.train.machine.distributed import rank_and_size, sum_over_processes
from sslight.train.task import Output, Task
from sslight.views import normalize

_MOMENTUM = 0.9


def build_fine_tuning_task(
    classifier: nn.Module,
    loader: CropLoader,
    fabric: Fabric,
    *,
    targets: Tensor,
    criterion: Callable[[Tensor, Tensor], Tensor],
    optimizer: Optimizer,
    set_rate: Callable[[int], None],
    mean: Sequence[float],
    std: Sequence[float],
    epochs: int,
    batch_size: int,
    frozen_norms_of: nn.Module | None = None,
    **more: Any,
) -> Task:
    """Fine-tuning of a whole classifier.

    Args:
        classifier: Normalized images ``[B, 3, H, W]`` → logits ``[B, C]``; changed in place.
        loader: Of this process.
        fabric: Launched Fabric.
        targets: Of the loader's images by position: classes ``[N]``, or ``[N, C]`` of 0 and 1.
        criterion: Logits and targets of a batch → the loss, such as :func:`mean_cross_entropy`.
        optimizer: Of the classifier's parameters.
        set_rate: Sets the optimizer's rates for a step.
        mean, std: Of the input's normalization.
        epochs: Length.
        batch_size: Images in a step, over all processes.
        frozen_norms_of: A part of the classifier whose batch norms use and keep the statistics they have.
        more: Further parts of the :class:`Task`.
    """
    synchronize_batch_norm(classifier, fabric)
    targets = targets.to(fabric.device)

    frozen_norms = [] if frozen_norms_of is None else batch_norms(frozen_norms_of)

    def freeze(step: int) -> None:
        for norm in frozen_norms:
            norm.eval()

    def set_scheduled(step: int) -> dict[str, float]:
        set_rate(step)
        return {"lr": optimizer.param_groups[0]["lr"]}

    def loss(wrapped: nn.Module, batch: CropBatch, step: int) -> Output:
        logits = wrapped(normalize(batch.images[None], mean, std))
        wanted = targets[batch.indices]
        value = criterion(logits, wanted)
        right = logits.detach().argmax(1) == wanted if wanted.ndim == 1 else (logits.detach() > 0) == (wanted > 0)
        return Output(value, {"loss": value.detach(), "train_top1": 100 * right.float().mean()})

    return Task(
        module=classifier,
        optimizer=optimizer,
        loss=loss,
        set_rates=set_scheduled,
        total_steps=epochs * loader.steps_per_epoch,
        batch_size=batch_size,
        begin_step=freeze,
        **more,
    )


def mean_cross_entropy(
    logits: Tensor, labels: Tensor, *, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of ``logits [B, C]``, whose mean over processes is the mean over the images of all of them.

    ``labels`` are classes ``[B]``, or ``[B, C]`` of 0 and 1, each of which is a question of its own. ``weights [C]``
    are those of images by class, or of the ones among the zeros of each column.
    """
    processes = rank_and_size()[1]
    count = torch.tensor(float(len(labels)), device=labels.device)
    sum_over_processes(count)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if labels.ndim == 1:
        total = F.cross_entropy(logits, labels, weights, reduction="sum", label_smoothing=label_smoothing)
    else:
        wanted = labels * (1 - label_smoothing) + label_smoothing / 2
        each = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weights, reduction="none")
        total = each.mean(1).sum()
    return total / (count / processes)


def fine_tuning_optimizer(classifier: Classifier, *, head_lr_factor: float) -> Optimizer:
    """SGD with Nesterov momentum 0.9 and without weight decay; the factor is for the whole head."""
    groups = classification_groups(classifier.backbone, classifier.head, head_lr_factor=head_lr_factor)
    return torch.optim.SGD(groups, lr=0.0, momentum=_MOMENTUM, nesterov=True)


def set_fine_tuning_rate(optimizer: Optimizer, step: int, *, peak: float, min_lr: float, total_steps: int) -> None:
    """The rate of the cosine schedule at a step."""
    set_rates(optimizer, lr=cosine_schedule(step, base=peak, final=min_lr, total_steps=total_steps), weight_decay=0.0)


def class_weights(targets: Tensor, num_classes: int) -> Tensor:
    """By which each class counts as much as another, ``[C]``; with targets ``[N, C]`` as many ones as zeros."""
    if targets.ndim == 2:
        ones = targets.sum(0).clamp(min=1)
        return (len(targets) - ones).clamp(min=1) / ones
    counts = torch.bincount(targets, minlength=num_classes).clamp(min=1)
    return len(targets) / (num_classes * counts)
