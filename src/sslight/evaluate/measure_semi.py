"""The semi-supervised protocol on a task: the whole network is fine-tuned."""

import copy
from collections.abc import Mapping

import numpy as np
import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor

from sslight.data import BadImage
from sslight.evaluate.crops import RandomCrops
from sslight.evaluate.features import eval_mode, feature_batches
from sslight.evaluate.metrics import accuracy_of_ranks, label_ranks
from sslight.evaluate.model import is_timm
from sslight.evaluate.sets import check_unreadable
from sslight.evaluate.task import Measurement, Task
from sslight.finetuning.classifier import (
    PUBLISHED_BATCH,
    Classifier,
    carries_over,
    fine_tuning_optimizer,
    fine_tuning_step,
    published_epochs,
    set_fine_tuning_rate,
)
from sslight.train.distributed import own_share, rank_and_size, sum_over_processes
from sslight.views import normalize


def check_head(task: Task) -> Mapping[str, Tensor] | None:
    """The projection head that carries over, or None for a linear one; ValueError if what is asked for is not there."""
    wanted, projection = task.settings.semi.head, task.model.projection
    fits = carries_over(projection)
    if wanted == "projection" and not fits:
        reason = "has none" if projection is None else "has one without batch norm"
        raise ValueError(
            f"semi.head=projection needs the DINO projection head, and {task.settings.checkpoint} {reason}: "
            f"give a checkpoint of a run with batch norm in its head, or set semi.head=linear."
        )
    return projection if fits and wanted != "linear" else None


def measure_semi(task: Task) -> Measurement | None:
    """Fine-tune, then classify data.val; None in all processes but the first."""
    settings, sets = task.settings.semi, task.sets
    projection = check_head(task)
    classifier = Classifier(
        copy.deepcopy(task.model.backbone), len(sets.classes), projection=projection, seed=task.settings.seed
    ).to(task.device)
    processes = rank_and_size()[1]
    if processes > 1 and task.device.type == "cuda":
        classifier = convert_sync_batchnorm(classifier)
    epochs = settings.epochs or published_epochs(sets.train_share)
    batch_size = settings.batch_size or min(PUBLISHED_BATCH, len(sets.train) // 4)
    batch_size = max(2 * processes, batch_size)  # batch norm needs two images in each process
    _fine_tune(task, classifier, epochs, batch_size)
    for buffer in classifier.buffers() if processes > 1 else ():
        dist.broadcast(buffer, 0)  # without synchronised batch norm each process has its own statistics
    ranks, readable = _ranks(task, classifier)
    if rank_and_size()[0] > 0:
        return None
    kept = torch.from_numpy(np.flatnonzero(readable.cpu().numpy()))
    accuracy = accuracy_of_ranks(ranks.cpu()[kept], torch.from_numpy(sets.val_labels)[kept], sets.classes)
    notes = []
    if projection is None and settings.head == "auto" and not is_timm(task.settings.checkpoint):
        notes.append(
            "the checkpoint has no DINO projection head with batch norm, so the classifier is one new linear layer; "
            "the published protocol carries the head over (give checkpoints/last.pt of a run, not an export)."
        )
    return Measurement(
        "semi",
        accuracy,
        {
            "head": "linear" if projection is None else "projection",
            "train_share": sets.train_share,
            "epochs": epochs,
            "batch_size": batch_size,
            "unreadable_val": len(readable) - len(kept),
        },
        notes=notes,
        tensors=dict(classifier.head.state_dict()),
        fine_tuned=classifier.backbone,
    )


def _fine_tune(task: Task, classifier: Classifier, epochs: int, batch_size: int) -> None:
    settings, sets = task.settings.semi, task.sets
    labels = torch.from_numpy(sets.train_labels)
    optimizer = fine_tuning_optimizer(classifier, head_lr_factor=settings.head_lr_factor)
    crops = RandomCrops(
        sets.train,
        size=task.transform.image_size,
        batch_size=batch_size,
        smallest_step=2 * rank_and_size()[1],
        seed=task.settings.seed,
        workers=task.workers,
        max_bad_share=task.settings.data.max_bad_share,
        limits=task.limits,
    )
    task.progress.stage("fine-tuning, steps", epochs * crops.steps_per_epoch)
    classifier.train()
    peak, total = settings.lr * batch_size / 256, epochs * crops.steps_per_epoch
    try:
        for epoch in range(epochs):
            set_fine_tuning_rate(
                optimizer, epoch * crops.steps_per_epoch, peak=peak, min_lr=settings.min_lr, total_steps=total
            )
            for batch in crops.epoch(epoch):
                views = normalize(batch.images.to(task.device)[None], task.transform.mean, task.transform.std)
                wanted = labels[batch.indices].to(task.device)
                loss = fine_tuning_step(classifier, optimizer, views, wanted, precision=task.settings.precision)
                task.progress.advance(1, f"epoch {epoch + 1}/{epochs}")
            if not loss.isfinite():  # the host waits for the device once an epoch
                raise ValueError(
                    f"the loss became {float(loss)} in epoch {epoch + 1}: set a lower semi.lr (it was {settings.lr:g})."
                )
    finally:
        crops.close()


def _ranks(task: Task, classifier: Classifier) -> tuple[Tensor, Tensor]:
    """How many classes are ahead of the right one for each image of data.val, and which could be read."""
    sets = task.sets
    labels = torch.from_numpy(sets.val_labels).to(task.device)
    ranks, readable = (torch.zeros(len(labels), dtype=torch.int64, device=task.device) for _ in range(2))
    bad: list[BadImage] = []
    with eval_mode(classifier):
        for indices, logits in feature_batches(
            classifier,
            sets.val,
            task.transform,
            indices=own_share(np.arange(len(sets.val))),
            batch_size=task.settings.feature_batch_size,
            workers=task.workers,
            device=task.device,
            bad=bad,
            precision=task.settings.precision,
            limits=task.limits,
        ):
            rows = indices.to(task.device)
            ranks[rows] = label_ranks(logits, labels[rows])
            readable[rows] = 1
    for rows_of_all in (ranks, readable):  # each row is non-zero in one process only
        sum_over_processes(rows_of_all)
    check_unreadable(int((readable == 0).sum()), len(readable), "data.val", task.settings.data.max_bad_share)
    return ranks, readable
