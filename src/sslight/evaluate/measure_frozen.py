"""kNN and the linear protocols on a task: the backbone does not change."""

import torch
from torch import Tensor, nn

from sslight.backbones import PUBLISHED_BLOCKS, LastBlocks, has_class_token, num_features
from sslight.data import SubsetSource
from sslight.evaluate.crops import RandomCrops
from sslight.evaluate.features import eval_mode
from sslight.evaluate.held_out import draw_held_out
from sslight.evaluate.knn import knn_ranks
from sslight.evaluate.linear_probe import (
    PUBLISHED_BATCH,
    LinearProbes,
    default_rates,
    new_linear,
)
from sslight.evaluate.logistic import fit_logistic_regression
from sslight.evaluate.metrics import accuracy_of_ranks, label_ranks
from sslight.evaluate.task import Measurement, Task
from sslight.train.distributed import rank_and_size
from sslight.views import normalize

_DEFAULT_K = 20


def measure_knn(task: Task) -> Measurement | None:
    """KNN accuracies for all k; None in all processes but the first."""
    train, train_labels, val, val_labels = task.both_features(task.model.backbone)
    if rank_and_size()[0] > 0:
        return None
    settings, classes = task.settings.knn, task.sets.classes
    if settings.k[-1] > len(train):
        raise ValueError(f"knn.k={settings.k[-1]} is more than the {len(train)} readable training images: lower it.")
    task.progress.say(f"searching the neighbours of {len(val):,} images among {len(train):,}")
    ranks = knn_ranks(
        train,
        train_labels,
        val.to(task.device),
        val_labels,
        ks=settings.k,
        temperature=settings.temperature,
        num_classes=len(classes),
    )
    by_k = {k: accuracy_of_ranks(rank, val_labels, classes) for k, rank in ranks.items()}
    default = min(settings.k, key=lambda k: (abs(k - _DEFAULT_K), k))
    return Measurement("knn", by_k[default], {"k": default}, by_k=by_k)


def _represented(task: Task) -> tuple[nn.Module, int | None]:
    """The frozen network whose features the linear protocols classify, and its number of last blocks."""
    backbone, blocks = task.model.backbone, task.settings.linear.last_blocks
    if blocks is None and has_class_token(backbone):
        blocks = PUBLISHED_BLOCKS
    return (backbone if blocks is None else LastBlocks(backbone, blocks)), blocks


def measure_linear_fast(task: Task) -> Measurement | None:
    """Logistic regression on centre-crop features; None in all processes but the first."""
    represented, blocks = _represented(task)
    train, train_labels, val, val_labels = task.both_features(represented)
    if rank_and_size()[0] > 0:
        return None
    task.progress.say(f"fitting logistic regressions to {len(train):,} images")
    fitted = fit_logistic_regression(
        train.to(task.device),
        train_labels.to(task.device),
        num_classes=len(task.sets.classes),
        held_out_share=task.settings.linear.held_out_share,
        seed=task.settings.seed,
    )
    ranks = label_ranks(fitted.logits(val.to(task.device)), val_labels.to(task.device))
    return Measurement(
        "linear (fast)",
        accuracy_of_ranks(ranks, val_labels, task.sets.classes),
        {"l2": fitted.l2, "last_blocks": blocks, "num_features": train.shape[1]},
        tensors={"weight": fitted.weight, "bias": fitted.bias, "mean": fitted.mean, "std": fitted.std},
    )


def measure_linear_exact(task: Task) -> Measurement | None:
    """Classifiers trained on random crops, the best rate chosen on held-out training images.

    None in all processes but the first.
    """
    settings, sets, seed = task.settings.linear, task.sets, task.settings.seed
    represented, blocks = _represented(task)
    represented = represented.to(task.device)
    kind = settings.optimizer or ("sgd" if has_class_token(task.model.backbone) else "lars")
    batch_size = settings.batch_size or min(PUBLISHED_BATCH[kind], max(1, len(sets.train) // 8))
    base_rates = settings.lr or default_rates(kind, image_passes=settings.epochs * len(sets.train))
    val, val_labels = task.features(represented, sets.val, torch.from_numpy(sets.val_labels), "data.val")
    held_out, held_out_set = _held_out_part(task, represented, wanted=len(base_rates) > 1)
    probes = LinearProbes.build(
        [rate * batch_size / 256 for rate in base_rates],
        new_linear(val.shape[1], len(sets.classes), seed=seed),
        optimizer=kind,
        device=task.device,
    )
    num_unreadable = _train_probes(task, represented, probes, held_out, batch_size)
    if rank_and_size()[0] > 0:
        return None
    best, tried = (0, []) if held_out_set is None else probes.choose(*(part.to(task.device) for part in held_out_set))
    layer = probes.final[best]
    with torch.no_grad():
        ranks = label_ranks(layer(val.to(task.device)), val_labels.to(task.device))
    notes = []
    if len(base_rates) > 1 and best in (0, len(base_rates) - 1):
        end = "smallest" if best == 0 else "largest"
        notes.append(f"the best learning rate is the {end} that was tried: try others with linear.lr=[...].")
    return Measurement(
        "linear (exact)",
        accuracy_of_ranks(ranks, val_labels, sets.classes),
        {
            "optimizer": kind,
            "batch_size": batch_size,
            "lr": base_rates[best],
            "lr_tried": base_rates,
            "held_out_accuracy": tried,
            "last_blocks": blocks,
            "num_features": val.shape[1],
            "unreadable_train": num_unreadable,
        },
        notes=notes,
        tensors=dict(layer.state_dict()),
    )


def _held_out_part(task: Task, represented: nn.Module, *, wanted: bool) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """Which training images are held out (``[M]`` bool), and the features and labels of their centre crops."""
    sets = task.sets
    held_out = torch.zeros(len(sets.train), dtype=torch.bool)
    if not wanted:
        return held_out, None
    rows, _ = draw_held_out(len(sets.train), task.settings.linear.held_out_share, task.settings.seed)
    held_out[torch.from_numpy(rows)] = True
    labels = torch.from_numpy(sets.train_labels[rows])
    return held_out, task.features(represented, SubsetSource(sets.train, rows), labels, "the held-out part")


def _train_probes(task: Task, represented: nn.Module, probes: LinearProbes, held_out: Tensor, batch_size: int) -> int:
    """Train on random crops for all epochs; how many images this process could not read."""
    settings, sets = task.settings.linear, task.sets
    labels = torch.from_numpy(sets.train_labels)
    crops = RandomCrops(
        sets.train,
        size=task.transform.image_size,
        batch_size=batch_size,
        part_size=task.settings.feature_batch_size,
        seed=task.settings.seed,
        workers=task.workers,
        max_bad_share=task.settings.data.max_bad_share,
        limits=task.limits,
    )
    task.progress.stage("linear (exact), images", settings.epochs * len(sets.train))
    steps = crops.steps_per_epoch
    try:
        with eval_mode(represented):
            for epoch in range(settings.epochs):
                probes.set_rates(epoch * steps, total_steps=settings.epochs * steps, min_lr=settings.min_lr)
                parts: list[tuple[Tensor, Tensor]] = []
                for batch in crops.epoch(epoch):
                    parts.append((_frozen_features(task, represented, batch.images), batch.indices))
                    if not batch.ends_step:
                        continue
                    features, indices = (torch.cat(part) for part in zip(*parts, strict=True))
                    probes.step(features, labels[indices].to(task.device), held_out[indices].to(task.device))
                    parts = []
                    task.progress.advance(batch_size, f"epoch {epoch + 1}/{settings.epochs}")
    finally:
        crops.close()
    return crops.num_unreadable


@torch.no_grad()
def _frozen_features(task: Task, represented: nn.Module, images: Tensor) -> Tensor:
    if not len(images):
        return torch.zeros(0, num_features(represented), device=task.device)
    views = normalize(images.to(task.device)[None], task.transform.mean, task.transform.std)
    with torch.autocast(task.device.type, dtype=torch.bfloat16, enabled=task.settings.precision == "bf16"):
        features: Tensor = represented(views)
    return features.float()
