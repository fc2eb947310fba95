"""``sslight evaluate`` as a Python function: a backbone measured by kNN, linear and semi-supervised protocols."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from sslight.config import DetectSettings, EvaluateSettings, FinetuneSettings, build
from sslight.data import available_cores
from sslight.evaluate import EvaluationResult
from sslight.evaluate.run import prepare, run_evaluation
from sslight.train import Placement, build_fabric, place, weights_in
from sslight.train.record.progress import Progress


def evaluate_backbone(
    protocol: str, checkpoint: str | Path, overrides: Mapping[str, Any] | None = None, **more: Any
) -> EvaluationResult | None:
    """Measure a backbone by a protocol and write ``results.json``.

    ``evaluate_backbone("knn", "runs/first/backbone.safetensors", {"data.train": "train", "data.val": "val"})``;
    settings have the names of the command line, dotted in a mapping or nested as keywords.

    Args:
        protocol: ``knn``, ``linear`` or ``semi``.
        checkpoint: A run folder, an export, a checkpoint of this program or of the original, or ``timm:NAME[@FILE]``.
        overrides: Settings that differ from the defaults.
        more: The same as keywords; sections as dictionaries.

    Returns:
        The result; None except in the first process.

    Raises:
        ValueError: a setting, a file or the data is wrong.
    """
    return evaluate_with(
        build(EvaluateSettings, {**(overrides or {}), **more}, protocol=protocol, model=str(checkpoint))
    )


def evaluate_with(settings: EvaluateSettings) -> EvaluationResult | None:
    """:func:`evaluate_backbone` with settings that are already resolved."""
    given = settings.model
    whole = settings.protocol == "semi" or settings.network == "teacher"
    settings = settings.model_copy(update={"model": weights_in(given, whole=whole)})
    placement = place(settings.devices)
    if placement.world_size > 1:
        # Whatever can be refused is refused before this process starts others.
        prepare(settings, fabric=Fabric(accelerator="cpu"), workers=0, show_progress=False)
    fabric = build_fabric(settings, placement)
    fabric.launch()
    Progress(shown=fabric.is_global_zero and settings.model != given).say(f"of {given}: {settings.model}")
    return run_evaluation(settings, fabric=fabric, workers=evaluation_workers(settings, placement))


def evaluation_workers(settings: EvaluateSettings | DetectSettings | FinetuneSettings, placement: Placement) -> int:
    """Processes that decode for each computing process: as set, else none on a CPU and its share of the cores."""
    if settings.workers is not None:
        return settings.workers
    return 0 if placement.accelerator == "cpu" else max(1, available_cores() // placement.processes_per_node)
