"""The supervised task: a classifier is trained on random crops, all of it or the head alone."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from sslight.data import CropBatch, CropLoader
from sslight.finetuning.classifier import Classifier
from sslight.optim import classification_groups, cosine_schedule, set_rates
from sslight.train.devices import synchronize_batch_norm
from sslight.train.distributed import rank_and_size, sum_over_processes
from sslight.train.task import Output, Task
from sslight.views import normalize

_MOMENTUM = 0.9


def build_fine_tuning_task(
    classifier: Classifier,
    loader: CropLoader,
    fabric: Fabric,
    *,
    labels: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    epochs: int,
    batch_size: int,
    lr: float,
    min_lr: float,
    head_lr_factor: float,
) -> Task:
    """Fine-tuning of a whole classifier, as the semi-supervised protocol has it (SGD, cosine by epochs).

    Args:
        classifier: Changed in place.
        loader: Of this process.
        fabric: Launched Fabric.
        labels: ``[N]``, of the loader's images by position.
        mean, std: Of the input's normalisation.
        epochs: Length.
        batch_size: Images in a step, over all processes.
        lr: Peak learning rate for 256 images a step.
        min_lr: Rate at the end.
        head_lr_factor: By which the rate is multiplied for the head.
    """
    synchronize_batch_norm(classifier, fabric)
    optimizer = fine_tuning_optimizer(classifier, head_lr_factor=head_lr_factor)
    per_epoch = loader.steps_per_epoch
    labels = labels.to(fabric.device)

    def set_scheduled(step: int) -> dict[str, float]:
        first = step // per_epoch * per_epoch  # the original sets the rate at the first step of each epoch only
        peak = lr * batch_size / 256
        set_fine_tuning_rate(optimizer, first, peak=peak, min_lr=min_lr, total_steps=epochs * per_epoch)
        return {"lr": optimizer.param_groups[0]["lr"]}

    def loss(wrapped: nn.Module, batch: CropBatch, step: int) -> Output:
        logits = wrapped(normalize(batch.images[None], mean, std))
        wanted = labels[batch.indices]
        value = mean_cross_entropy(logits, wanted)
        right = (logits.detach().argmax(1) == wanted).float().mean()
        return Output(value, {"loss": value.detach(), "train_top1": 100 * right})

    return Task(
        module=classifier,
        optimizer=optimizer,
        loss=loss,
        set_rates=set_scheduled,
        total_steps=epochs * per_epoch,
        batch_size=batch_size,
        remedy=lambda newest: f"start again with a lower semi.lr (it was {lr:g}).",
    )


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of ``logits [B, C]``, whose mean over processes is the mean over the images of all of them."""
    processes = rank_and_size()[1]
    count = torch.tensor(float(len(labels)), device=labels.device)
    sum_over_processes(count)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(logits, labels, reduction="sum") / (count / processes)


def fine_tuning_optimizer(classifier: Classifier, *, head_lr_factor: float) -> Optimizer:
    """SGD with Nesterov momentum 0.9 and without weight decay; the factor is for the whole head."""
    groups = classification_groups(classifier.backbone, classifier.head, head_lr_factor=head_lr_factor)
    return torch.optim.SGD(groups, lr=0.0, momentum=_MOMENTUM, nesterov=True)


def set_fine_tuning_rate(optimizer: Optimizer, step: int, *, peak: float, min_lr: float, total_steps: int) -> None:
    """The rate of the cosine schedule at a step."""
    set_rates(optimizer, lr=cosine_schedule(step, base=peak, final=min_lr, total_steps=total_steps), weight_decay=0.0)
