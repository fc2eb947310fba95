"""``sslight evaluate detect`` as a Python function: a detector trained on a backbone, and its average precision."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from sslight.api.evaluate import evaluation_workers
from sslight.config import DetectSettings, build
from sslight.data import DetectionLoader, ReadLimits
from sslight.evaluate import DetectionResult
from sslight.evaluate.detection.measure import measure_detection
from sslight.evaluate.detection.task import build_detection_task, prepare_detection
from sslight.evaluate.results import remark_on
from sslight.train import RunFolder, build_fabric, place, train, weights_in
from sslight.train.machine.devices import synchronize_batch_norm
from sslight.train.record.progress import Progress


def detect(checkpoint: str | Path, overrides: Mapping[str, Any] | None = None, **more: Any) -> DetectionResult | None:
    """Train Faster R-CNN or Mask R-CNN on a pre-trained backbone, and measure its average precision.

    ``detect("runs/first/backbone.safetensors", data="coco", masks=True)``; settings have the names of the
    command line.

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
    return detect_with(build(DetectSettings, {**(overrides or {}), **more}, model=str(checkpoint)))


def detect_with(settings: DetectSettings) -> DetectionResult | None:
    """:func:`detect` with settings that are already resolved."""
    given = settings.model
    checkpoint = weights_in(given, whole=settings.network == "teacher")
    settings = settings.model_copy(update={"model": checkpoint})
    placement = place(settings.devices)
    if settings.batch_size % placement.world_size:
        raise ValueError(
            f"batch_size={settings.batch_size} does not divide by {placement.world_size} processes: set "
            f"batch_size={(settings.batch_size // placement.world_size + 1) * placement.world_size}."
        )
    prepared = prepare_detection(settings)
    run = RunFolder(prepared.folder)
    run.check(settings)
    fabric = build_fabric(settings, placement)
    fabric.launch()
    said = [f"of {given}: {checkpoint}"] * (checkpoint != given) + [remark_on(prepared.folder)]
    for sentence in filter(None, said):
        Progress(shown=fabric.is_global_zero).say(sentence)
    workers = evaluation_workers(settings, placement)
    loader = DetectionLoader(
        prepared.train,
        sizes=prepared.schedule.train_sizes,
        longest=settings.max_size,
        masks=settings.masks,
        batch_size=settings.batch_size // fabric.world_size,
        seed=settings.seed,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        workers=workers,
        max_bad_share=settings.max_bad_share,
        limits=ReadLimits(settings.max_pixels, settings.read_timeout),
    )
    if fabric.is_global_zero:
        run.create(settings)
    fabric.barrier()
    synchronize_batch_norm(prepared.detector.get_submodule("backbone"), fabric)
    task, options = build_detection_task(prepared, fabric)
    with closing(loader):
        training = train(task, fabric=fabric, loader=loader, run=run, options=options)
    figures = {"loss": training.metrics["loss"], "training_seconds": round(training.seconds, 1)}
    return measure_detection(prepared, device=fabric.device, workers=workers, training=figures)
