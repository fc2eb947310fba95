"""``sslight finetune`` as a Python function: a backbone and labeled images in, a classifier in one file out."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric

from sslight.api.evaluate import evaluation_workers
from sslight.api.finetune_run import FinetuneResult, Finetuning
from sslight.backbones import batch_norms, build_backbone, patch_side
from sslight.backbones.vit import MultiSizeVisionTransformer
from sslight.config import FinetuneSettings, build, read_plain_settings
from sslight.data import ReadLimits, check_readable, select_subset
from sslight.evaluate.features.extract import EvalTransform
from sslight.evaluate.model import EvaluatedModel, choose_image_size, load_model
from sslight.evaluate.results import FILE_NAME, checkpoint_facts
from sslight.evaluate.sets import LabeledSets, build_sets
from sslight.export.network import native_at
from sslight.train import RunFolder, build_fabric, failing_together, place, weights_in


def finetune(checkpoint: str | Path, overrides: Mapping[str, Any] | None = None, **more: Any) -> FinetuneResult | None:
    """Train a classifier from a pre-trained backbone, measure it on data.val, and write it as one file.

    ``finetune("runs/first", {"data.train": "train", "data.val": "val"}, output="runs/classifier")``; settings have
    the names of the command line.

    Args:
        checkpoint: As for :func:`evaluate_backbone`.
        overrides: Settings that differ from the defaults.
        more: The same as keywords.

    Returns:
        The result; None except in the first process.

    Raises:
        ValueError: a setting, a file or the data is wrong (before anything is written).
        TrainingStopped: the loss became non-finite or a signal ended the run.
    """
    return finetune_with(build(FinetuneSettings, {**(overrides or {}), **more}, model=str(checkpoint)))


def finetune_with(settings: FinetuneSettings) -> FinetuneResult | None:
    """:func:`finetune` with settings that are already resolved."""
    output = settings.output
    if output is None:
        raise ValueError("output is not set: give a folder for this run, such as output=runs/classifier.")
    if (output / FILE_NAME).exists():
        raise ValueError(f"output={output} already holds {FILE_NAME}: choose another folder.")
    settings = settings.model_copy(update={"model": weights_in(settings.model, whole=settings.network == "teacher")})
    run, placement = RunFolder(output), place(settings.devices)
    fabric = build_fabric(settings, placement)
    fabric.launch()
    with failing_together():
        model = load_model(settings.model, network=settings.network, seed=settings.seed)
        settings = _chosen(settings, model, run.config)
        run.check(settings)
        sets = build_sets(settings)
        finetuning = _prepare(settings, sets, model, fabric, evaluation_workers(settings, placement))
    finetuning.check_images()
    with failing_together():
        if fabric.is_global_zero:
            run.create(settings)
    module, details = finetuning.train(run)
    return finetuning.finish(run, module.best, details)


def _chosen(settings: FinetuneSettings, model: EvaluatedModel, config: Path) -> FinetuneSettings:
    """The settings with what null stands for: what it did in the run's ``config``, or by where the network starts.

    Measured: docs/fine-tuning.md.
    """
    norms = bool(batch_norms(model.backbone))
    if settings.freeze_norms and not norms:
        raise ValueError(
            f"freeze_norms=true would have no effect: {model.info.name} has no batch norms; set freeze_norms=false."
        )
    gently = settings.init == "weights" and not model.pretrained_here
    defaults = {
        "lr": 0.0003 if gently else 0.001,
        "head_init": "regression" if gently else "random",
        "freeze_norms": gently and norms,
    }
    with suppress(ValueError):
        before = read_plain_settings(config)  # of an earlier version without the other two, which are none then
        defaults = {"lr": defaults["lr"]} | {key: before[key] for key in defaults if before.get(key) is not None}
    return settings.model_copy(update={key: value for key, value in defaults.items() if getattr(settings, key) is None})


def _prepare(
    settings: FinetuneSettings, sets: LabeledSets, model: EvaluatedModel, fabric: Fabric, workers: int
) -> Finetuning:
    """Whatever can be refused is refused here; nothing is computed or written."""
    size = choose_image_size(model, settings.image_size, sets.train)
    if settings.resize is not None and settings.resize < size:
        raise ValueError(f"resize={settings.resize} is smaller than the image size {size}: resize to at least that.")
    limits = ReadLimits(settings.data.max_pixels, settings.data.read_timeout)
    for setting, source in (("data.train", sets.train), ("data.val", sets.val)):
        check_readable(source, setting=setting, limits=limits)
    backbone, info = model.backbone, model.info
    if settings.init == "random":
        torch.manual_seed(settings.seed)
        backbone = build_backbone(info.name, image_size=info.image_size, patch_size=info.patch_size)
        info = replace(info, notes={"source": f"new weights, drawn with seed {settings.seed}"})
        model = replace(model, backbone=backbone, info=info, notes=info.notes["source"])
    if patch_side(info.name) and size != info.image_size and not isinstance(backbone, MultiSizeVisionTransformer):
        raise ValueError(f"image_size={size}: {info.name} keeps its {info.image_size} px: leave image_size out.")
    backbone = native_at(backbone, info, size)
    transform = EvalTransform(size, info.mean, info.std, settings.resize)
    origin = checkpoint_facts(settings, model)
    if settings.init == "random":
        origin["path"] = f"timm:{info.name}"
    trained, held_out = _split(sets, settings)
    if len(trained) < 2 * fabric.world_size:
        raise ValueError(
            f"data.train has {len(trained)} images to train on, but each of {fabric.world_size} process(es) needs two "
            "for batch norm: give more."
        )
    return Finetuning(settings, sets, backbone, info, origin, transform, trained, held_out, fabric, workers, limits)


def _split(sets: LabeledSets, settings: FinetuneSettings) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions in data.train that are trained on, and that are held out; every class keeps an image to train on."""
    everything = np.arange(len(sets.train))
    trained = everything
    if settings.holdout:
        trained = select_subset(sets.train, 1 - settings.holdout, settings.seed, setting="holdout")
        labels = sets.train_labels
        if labels.ndim == 2:  # drawn without regard to the labels
            never = np.flatnonzero(labels.any(0) & ~labels[trained].any(0))
            trained = np.union1d(trained, labels[:, never].argmax(0))
    held_out = np.setdiff1d(everything, trained)
    if settings.holdout and not len(held_out):
        number, holdout = len(sets.train), f"holdout={settings.holdout:g}"
        keep = "holdout=0 to train on everything and keep the last epoch."
        if number <= len(sets.classes):
            raise ValueError(f"{holdout}: all {number} images of data.train are needed for their classes; set {keep}")
        raise ValueError(f"{holdout} of the {number} images of data.train is no image: raise it, or set {keep}")
    if settings.batch_size is not None and settings.batch_size > len(trained):
        raise ValueError(
            f"batch_size={settings.batch_size} is more than the {len(trained)} training images: set "
            f"batch_size={len(trained)} or less, or leave it out."
        )
    return trained, held_out
