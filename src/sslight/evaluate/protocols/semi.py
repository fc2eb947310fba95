"""The semi-supervised protocol: the whole network is fine-tuned with few labels."""

import copy
from collections.abc import Mapping
from contextlib import closing

import torch
import torch.nn.functional as F
from torch import Tensor

from sslight.backbones import eval_mode
from sslight.data import BadImage, check_bad_share, left_out_notes
from sslight.evaluate.classifiers.metrics import label_answers
from sslight.evaluate.evaluation import Evaluation, Measurement
from sslight.evaluate.features.extract import check_images, feature_batches
from sslight.evaluate.model import is_timm
from sslight.finetuning.classifier import Classifier, carries_over
from sslight.finetuning.task import (
    build_fine_tuning_task,
    fine_tuning_optimizer,
    mean_cross_entropy,
    set_fine_tuning_rate,
)
from sslight.train.machine.distributed import rank_and_size, sum_over_processes

PUBLISHED_BATCH = 1024
"""Images in a step of the published protocol (8 GPUs)."""

_FEW_LABELS, _FEW_STEPS = 0.05, 300  # the first is a share
_PUBLISHED_STEPS = 720  # of the run with 1 % of ImageNet's labels
_SMALLEST_BATCH = 16


def published_epochs(share: float) -> int:
    """60 epochs for 1 % of the labels, 30 for 10 %; ``share`` is that of the labels, 0–1."""
    return 60 if share < _FEW_LABELS else 30


def default_batch_size(num_images: int, epochs: int) -> int:
    """1,024, as published, but no larger than leaves the 720 steps of the published run with the fewest labels.

    At least 16, below which the statistics of batch norm say little, or all images.
    """
    batch_size = min(PUBLISHED_BATCH, num_images * epochs // _PUBLISHED_STEPS)
    return min(num_images, max(_SMALLEST_BATCH, batch_size))


def check_head(evaluation: Evaluation) -> Mapping[str, Tensor] | None:
    """The projection head that carries over, or None for a linear one; ValueError if what is asked for is not there."""
    wanted, projection = evaluation.settings.semi.head, evaluation.model.projection
    fits = carries_over(projection)
    if wanted == "projection" and not fits:
        reason = "has none" if projection is None else "has one without batch norm"
        raise ValueError(
            f"semi.head=projection needs the DINO projection head, and {evaluation.settings.model} {reason}: "
            f"give a checkpoint of a run with batch norm in its head, or set semi.head=linear."
        )
    return projection if fits and wanted != "linear" else None


def measure_semi(evaluation: Evaluation) -> Measurement | None:
    """Fine-tune, then classify data.val; None in all processes but the first."""
    settings, sets = evaluation.settings.semi, evaluation.sets
    projection = check_head(evaluation)
    classifier = Classifier(
        copy.deepcopy(evaluation.model.backbone),
        len(sets.classes),
        projection=projection,
        seed=evaluation.settings.seed,
    )
    processes = evaluation.fabric.world_size
    epochs = settings.epochs or published_epochs(sets.train_share)
    batch_size = settings.batch_size or default_batch_size(len(sets.train), epochs)
    batch_size = max(2 * processes, batch_size)  # batch norm needs two images in each process
    max_share = evaluation.settings.data.max_bad_share
    unreadable = check_images(sets.val, "data.val", evaluation.how, max_share, evaluation.progress)
    notes = left_out_notes(unreadable, len(sets.val), "data.val")
    for note in notes:
        evaluation.progress.say(note)
    if (steps := epochs * max(1, len(sets.train) // batch_size)) < _FEW_STEPS:
        notes.append(
            f"only {steps} step(s) of {batch_size} images: too few to finish fine-tuning, so the "
            "accuracy says more about the schedule than about the weights; set a smaller "
            "semi.batch_size or more semi.epochs."
        )
        evaluation.progress.say(notes[-1])
    _fine_tune(evaluation, classifier, epochs, batch_size)
    answers, rows = _answers(evaluation, classifier)
    if rank_and_size()[0] > 0:
        return None
    if projection is None and settings.head == "auto" and not is_timm(evaluation.settings.model):
        notes.append(
            "the checkpoint has no DINO projection head with batch norm, so the classifier is one new linear layer; "
            "the published protocol carries the head over (give checkpoints/last.pt of a run, not an export)."
        )
    return evaluation.measured(
        "semi",
        answers,
        torch.from_numpy(sets.val_labels)[rows],
        rows,
        {
            "head": "linear" if projection is None else "projection",
            "train_share": sets.train_share,
            "epochs": epochs,
            "batch_size": batch_size,
            "unreadable_val": len(sets.val) - len(rows),
        },
        notes=notes,
        tensors=dict(classifier.head.state_dict()),
        fine_tuned=classifier.backbone,
    )


def _fine_tune(evaluation: Evaluation, classifier: Classifier, epochs: int, batch_size: int) -> None:
    settings, transform = evaluation.settings.semi, evaluation.transform
    processes = evaluation.fabric.world_size
    with closing(evaluation.crops(batch_size=batch_size, smallest_step=2 * processes)) as loader:
        optimizer = fine_tuning_optimizer(classifier, head_lr_factor=settings.head_lr_factor)
        per_epoch = loader.steps_per_epoch

        def set_rate(step: int) -> None:
            first = step // per_epoch * per_epoch  # the original sets the rate at the first step of each epoch only
            peak = settings.lr * batch_size / 256
            set_fine_tuning_rate(optimizer, first, peak=peak, min_lr=settings.min_lr, total_steps=epochs * per_epoch)

        task = build_fine_tuning_task(
            classifier,
            loader,
            evaluation.fabric,
            targets=torch.from_numpy(evaluation.sets.train_labels),
            criterion=mean_cross_entropy,
            optimizer=optimizer,
            set_rate=set_rate,
            mean=transform.mean,
            std=transform.std,
            epochs=epochs,
            batch_size=batch_size,
            remedy=lambda newest: f"start again with a lower semi.lr (it was {settings.lr:g}).",
        )
        evaluation.train(task, loader, placement=f"fine-tuning on {len(evaluation.sets.train):,} images")


def _answers(evaluation: Evaluation, classifier: Classifier) -> tuple[Tensor, Tensor]:
    """:func:`label_answers` for the readable images of data.val, and their positions; the head computes in float32."""
    sets = evaluation.sets
    labels = torch.from_numpy(sets.val_labels).to(evaluation.device)
    found = torch.zeros(len(labels), 4, dtype=torch.int64, device=labels.device)  # the answer, and whether it is one
    bad: list[BadImage] = []
    with eval_mode(classifier):
        batches = feature_batches(classifier.backbone, sets.val, evaluation.transform, evaluation.how, bad=bad)
        for indices, features in batches:
            rows = indices.to(evaluation.device)
            with torch.no_grad():
                found[rows] = F.pad(label_answers(classifier.head(features), labels[rows]), (0, 1), value=1)
    sum_over_processes(found)  # each row is non-zero in one process only
    found = found.cpu()
    kept = found[:, 3].nonzero()[:, 0]
    check_bad_share(len(found) - len(kept), len(found), "data.val", evaluation.settings.data.max_bad_share)
    return found[kept, :3], kept
