"""The linear protocols: a classifier on the frozen backbone, by logistic regression or trained on random crops."""

from collections.abc import Iterator
from contextlib import closing
from typing import Literal, Self

import torch
from torch import Tensor, nn

from sslight.backbones import PUBLISHED_BLOCKS, LastBlocks, eval_mode, has_class_token, num_features
from sslight.config import EvaluateSettings
from sslight.data import CropBatch, CropLoader, SubsetSource
from sslight.evaluate.classifiers.linear_probe import (
    PUBLISHED_RATE,
    LinearProbes,
    default_rates,
    new_linear,
    published_batch,
)
from sslight.evaluate.classifiers.logistic import draw_held_out, fit_logistic_regression
from sslight.evaluate.classifiers.metrics import label_answers
from sslight.evaluate.evaluation import Evaluation, Features, Measurement
from sslight.evaluate.features.extract import features_of
from sslight.train import Output, Task
from sslight.train.machine.distributed import rank_and_size


def _represented(evaluation: Evaluation) -> tuple[nn.Module, int | None]:
    """The frozen network whose features the linear protocols classify, and its number of last blocks."""
    backbone, blocks = evaluation.model.backbone, evaluation.settings.linear.last_blocks
    if blocks is None and has_class_token(backbone):
        blocks = PUBLISHED_BLOCKS
    return (backbone if blocks is None else LastBlocks(backbone, blocks)), blocks


def measure_linear_fast(evaluation: Evaluation) -> Measurement | None:
    """Logistic regression on center-crop features; None in all processes but the first."""
    represented, blocks = _represented(evaluation)
    train, val = evaluation.both_features(represented)
    if rank_and_size()[0] > 0:
        return None
    evaluation.progress.say(f"fitting logistic regressions to {len(train.labels):,} images")
    device = evaluation.device
    fitted = fit_logistic_regression(
        train.values.to(device),
        train.labels.to(device),
        num_classes=len(evaluation.sets.classes),
        held_out_share=evaluation.settings.linear.held_out_share,
        seed=evaluation.settings.seed,
    )
    return evaluation.measured(
        "linear (fast)",
        label_answers(fitted.logits(val.values.to(device)), val.labels.to(device)),
        val.labels,
        val.rows,
        {"l2": fitted.l2, "last_blocks": blocks, "num_features": train.values.shape[1]},
        tensors={"weight": fitted.weight, "bias": fitted.bias, "mean": fitted.mean, "std": fitted.std},
    )


def measure_linear_trained(evaluation: Evaluation) -> Measurement | None:
    """Classifiers trained on random crops, the rate chosen on held-out training images; None in all but the first."""
    settings, sets, seed = evaluation.settings.linear, evaluation.sets, evaluation.settings.seed
    represented, blocks = _represented(evaluation)
    represented = represented.to(evaluation.device)
    kind = settings.optimizer or _published_optimizer(evaluation.model.backbone)
    batch_size = settings.batch_size or published_batch(kind, len(sets.train))
    base_rates = [PUBLISHED_RATE[kind]] if settings.mode == "published" else settings.lr
    base_rates = base_rates or default_rates(kind, image_passes=settings.epochs * len(sets.train))
    val = evaluation.features(represented, sets.val, sets.val_labels, "data.val")
    held_out, held_out_set = _held_out_part(evaluation, represented, wanted=len(base_rates) > 1)
    first = new_linear(val.values.shape[1], len(sets.classes), seed=seed)
    probes = LinearProbes([rate * batch_size / 256 for rate in base_rates], first, optimizer=kind)
    num_unreadable = _train_probes(evaluation, represented, probes, held_out, batch_size)
    if rank_and_size()[0] > 0:
        return None
    device = evaluation.device
    best, tried = 0, list[float]()
    if held_out_set is not None:
        best, tried = probes.choose(held_out_set.values.to(device), held_out_set.labels.to(device))
    layer = probes.final[best]
    with torch.no_grad():
        answers = label_answers(layer(val.values.to(device)), val.labels.to(device))
    notes = []
    if len(base_rates) > 1 and best in (0, len(base_rates) - 1):
        end = "smallest" if best == 0 else "largest"
        notes.append(f"the best learning rate is the {end} one tried: try others with linear.lr=[...].")
    details = {
        "optimizer": kind,
        "epochs": settings.epochs,
        "batch_size": batch_size,
        "lr": base_rates[best],
        "lr_tried": base_rates,
        "held_out_accuracy": tried,
        "last_blocks": blocks,
        "num_features": val.values.shape[1],
        "unreadable_train": num_unreadable,
    }
    published = _is_published(evaluation, (kind, batch_size, base_rates, blocks))
    name = "linear (published)" if published else "linear (trained)"
    return evaluation.measured(
        name, answers, val.labels, val.rows, details, notes=notes, tensors=dict(layer.state_dict())
    )


def _published_optimizer(backbone: nn.Module) -> Literal["lars", "sgd"]:
    return "sgd" if has_class_token(backbone) else "lars"


def _is_published(evaluation: Evaluation, trained: tuple[object, ...]) -> bool:
    """Whether all is as published, whatever the mode is called; the batch is scaled to small sets as documented.

    ``trained``: optimizer, batch, rates and last blocks of the run.
    """
    settings, backbone = evaluation.settings, evaluation.model.backbone
    kind, blocks = _published_optimizer(backbone), PUBLISHED_BLOCKS if has_class_token(backbone) else None
    plain = EvaluateSettings(protocol="linear", model=settings.model)
    return (
        trained == (kind, published_batch(kind, len(evaluation.sets.train)), [PUBLISHED_RATE[kind]], blocks)
        and all(getattr(settings, name) == getattr(plain, name) for name in ("network", "precision", "resize"))
        and all(getattr(settings.linear, name) == getattr(plain.linear, name) for name in ("epochs", "min_lr"))
        and settings.data.subset is None
        and evaluation.transform.image_size == evaluation.model.info.image_size
    )


def _held_out_part(evaluation: Evaluation, represented: nn.Module, *, wanted: bool) -> tuple[Tensor, Features | None]:
    """Which training images are held out (``[M]`` bool), and the features and labels of their center crops."""
    sets = evaluation.sets
    held_out = torch.zeros(len(sets.train), dtype=torch.bool)
    if not wanted:
        return held_out, None
    rows, _ = draw_held_out(len(sets.train), evaluation.settings.linear.held_out_share, evaluation.settings.seed)
    held_out[torch.from_numpy(rows)] = True
    part = SubsetSource(sets.train, rows)
    return held_out, evaluation.features(represented, part, sets.train_labels[rows], "the held-out part")


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
        rates = f"{len(probes.rates)} learning rate{'s' * (len(probes.rates) > 1)}"
        placement = f"a linear classifier with {rates} on {len(sets.train):,} images"
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


def _frozen_features(evaluation: Evaluation, represented: nn.Module, images: Tensor) -> Tensor:
    if not len(images):
        return torch.zeros(0, num_features(represented), device=evaluation.device)
    return features_of(represented, images, evaluation.transform, evaluation.how)
