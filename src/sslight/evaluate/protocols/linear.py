"""The linear protocols: a classifier on the frozen backbone, by logistic regression or exactly as published."""

from collections.abc import Iterator
from contextlib import closing
from typing import Self

import torch
from torch import Tensor, nn

from sslight.backbones import PUBLISHED_BLOCKS, LastBlocks, has_class_token, num_features
from sslight.data import CropBatch, CropLoader, SubsetSource
from sslight.evaluate.classifiers.held_out import draw_held_out
from sslight.evaluate.classifiers.linear_probe import (
    PUBLISHED_BATCH,
    LinearProbes,
    default_rates,
    new_linear,
)
from sslight.evaluate.classifiers.logistic import fit_logistic_regression
from sslight.evaluate.classifiers.metrics import accuracy_of_ranks, label_ranks
from sslight.evaluate.evaluation import Evaluation, Measurement
from sslight.evaluate.features.extract import eval_mode
from sslight.train import Output, Task
from sslight.train.distributed import rank_and_size
from sslight.views import normalize


def _represented(evaluation: Evaluation) -> tuple[nn.Module, int | None]:
    """The frozen network whose features the linear protocols classify, and its number of last blocks."""
    backbone, blocks = evaluation.model.backbone, evaluation.settings.linear.last_blocks
    if blocks is None and has_class_token(backbone):
        blocks = PUBLISHED_BLOCKS
    return (backbone if blocks is None else LastBlocks(backbone, blocks)), blocks


def measure_linear_fast(evaluation: Evaluation) -> Measurement | None:
    """Logistic regression on centre-crop features; None in all processes but the first."""
    represented, blocks = _represented(evaluation)
    train, train_labels, val, val_labels = evaluation.both_features(represented)
    if rank_and_size()[0] > 0:
        return None
    evaluation.progress.say(f"fitting logistic regressions to {len(train):,} images")
    fitted = fit_logistic_regression(
        train.to(evaluation.device),
        train_labels.to(evaluation.device),
        num_classes=len(evaluation.sets.classes),
        held_out_share=evaluation.settings.linear.held_out_share,
        seed=evaluation.settings.seed,
    )
    ranks = label_ranks(fitted.logits(val.to(evaluation.device)), val_labels.to(evaluation.device))
    return Measurement(
        "linear (fast)",
        accuracy_of_ranks(ranks, val_labels, evaluation.sets.classes),
        {"l2": fitted.l2, "last_blocks": blocks, "num_features": train.shape[1]},
        tensors={"weight": fitted.weight, "bias": fitted.bias, "mean": fitted.mean, "std": fitted.std},
    )


def measure_linear_exact(evaluation: Evaluation) -> Measurement | None:
    """Classifiers trained on random crops, the best rate chosen on held-out training images.

    None in all processes but the first.
    """
    settings, sets, seed = evaluation.settings.linear, evaluation.sets, evaluation.settings.seed
    represented, blocks = _represented(evaluation)
    represented = represented.to(evaluation.device)
    kind = settings.optimizer or ("sgd" if has_class_token(evaluation.model.backbone) else "lars")
    batch_size = settings.batch_size or min(PUBLISHED_BATCH[kind], max(1, len(sets.train) // 8))
    base_rates = settings.lr or default_rates(kind, image_passes=settings.epochs * len(sets.train))
    val, val_labels = evaluation.features(represented, sets.val, torch.from_numpy(sets.val_labels), "data.val")
    held_out, held_out_set = _held_out_part(evaluation, represented, wanted=len(base_rates) > 1)
    first = new_linear(val.shape[1], len(sets.classes), seed=seed)
    probes = LinearProbes([rate * batch_size / 256 for rate in base_rates], first, optimizer=kind)
    num_unreadable = _train_probes(evaluation, represented, probes, held_out, batch_size)
    if rank_and_size()[0] > 0:
        return None
    best, tried = (
        (0, []) if held_out_set is None else probes.choose(*(part.to(evaluation.device) for part in held_out_set))
    )
    layer = probes.final[best]
    with torch.no_grad():
        ranks = label_ranks(layer(val.to(evaluation.device)), val_labels.to(evaluation.device))
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


def _held_out_part(
    evaluation: Evaluation, represented: nn.Module, *, wanted: bool
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """Which training images are held out (``[M]`` bool), and the features and labels of their centre crops."""
    sets = evaluation.sets
    held_out = torch.zeros(len(sets.train), dtype=torch.bool)
    if not wanted:
        return held_out, None
    rows, _ = draw_held_out(len(sets.train), evaluation.settings.linear.held_out_share, evaluation.settings.seed)
    held_out[torch.from_numpy(rows)] = True
    labels = torch.from_numpy(sets.train_labels[rows])
    return held_out, evaluation.features(represented, SubsetSource(sets.train, rows), labels, "the held-out part")


def _train_probes(
    evaluation: Evaluation, represented: nn.Module, probes: LinearProbes, held_out: Tensor, batch_size: int
) -> int:
    """Train on random crops for all epochs; how many images this process could not read."""
    settings, sets, device = evaluation.settings.linear, evaluation.sets, evaluation.device
    labels, held_out = torch.from_numpy(sets.train_labels).to(device), held_out.to(device)
    crops = evaluation.crops(batch_size=batch_size, part_size=evaluation.settings.feature_batch_size)
    per_epoch = crops.steps_per_epoch

    def set_rates(step: int) -> dict[str, float]:
        first = step // per_epoch * per_epoch  # the original sets the rate at the first step of each epoch only
        probes.set_rates(first, total_steps=settings.epochs * per_epoch, min_lr=settings.min_lr)
        return {"lr": probes.optimizer.param_groups[0]["lr"]}

    def loss(wrapped: nn.Module, batch: CropStep, step: int) -> Output:
        parts = [(_frozen_features(evaluation, represented, part.images), part.indices) for part in batch]
        features, indices = (torch.cat(part) for part in zip(*parts, strict=True))
        indices = indices.to(device)
        final, trial = wrapped(features, labels[indices], held_out[indices])
        return Output(final.sum() + trial.sum(), {"loss": final.detach().min()})

    task = Task(
        module=probes,
        optimizer=probes.optimizer,
        loss=loss,
        set_rates=set_rates,
        total_steps=settings.epochs * per_epoch,
        batch_size=batch_size,
        may_diverge=True,
    )
    with closing(crops), eval_mode(represented):
        placement = f"linear (exact) with {len(probes.rates)} learning rates on {len(sets.train):,} images"
        evaluation.train(task, WholeSteps(crops), placement=placement)
    return len(crops.bad_images)


class CropStep:
    """All parts of a step, which are loaded as they are asked for; ``indices`` are not known before."""

    indices = torch.zeros(0, dtype=torch.int64)

    def __init__(self, parts: Iterator[CropBatch]) -> None:
        self._parts = parts
        self._ended = False

    def __iter__(self) -> Iterator[CropBatch]:
        while not self._ended:
            part = next(self._parts)
            self._ended = part.ends_step
            yield part

    def to(self, device: torch.device, non_blocking: bool = True) -> Self:
        """Itself: its parts are moved when they are used."""
        return self

    def tensors(self) -> list[Tensor]:
        """None yet."""
        return []


class WholeSteps:
    """A loader of crops whose steps come whole, however many parts they have."""

    def __init__(self, loader: CropLoader) -> None:
        self._loader = loader
        self.state_dict, self.load_state_dict = loader.state_dict, loader.load_state_dict

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return self._loader.steps_per_epoch

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[CropStep]:
        """The steps of ``epoch`` from ``start_step`` on."""
        parts = self._loader.epoch(epoch, start_step)
        for _ in range(start_step, self.steps_per_epoch):
            yield CropStep(parts)


@torch.no_grad()
def _frozen_features(evaluation: Evaluation, represented: nn.Module, images: Tensor) -> Tensor:
    if not len(images):
        return torch.zeros(0, num_features(represented), device=evaluation.device)
    transform = evaluation.transform
    views = normalize(images.to(evaluation.device, non_blocking=True)[None], transform.mean, transform.std)
    precision = evaluation.settings.precision
    with torch.autocast(evaluation.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        features: Tensor = represented(views)
    return features.float()
