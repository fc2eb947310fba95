"""``sslight pretrain`` as a Python function: settings in, a pre-trained backbone out."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from sslight.api.plan import PLANNED, auto_settings
from sslight.api.report import framed_report, report_runs
from sslight.backbones import (
    batch_norms,
    find_public,
    further_notes,
    is_public,
    load_backbone_weights,
    num_features,
    save_backbone,
)
from sslight.config import PretrainSettings, load_recipe, to_yaml
from sslight.data import (
    ReadLimits,
    Source,
    build_view_loader,
    check_enough_images,
    check_readable,
    count_reasons,
    data_fingerprint,
    labels_in,
    source_notice,
    unmatched_notes,
    write_bad_images,
)
from sslight.evaluate.features.extract import EvalTransform
from sslight.evaluate.online import LabeledProbe, extraction
from sslight.evaluate.sets import shared_notes
from sslight.methods import Method, build_method
from sslight.optim import check_optimizer
from sslight.pretraining.health import lower_rate
from sslight.pretraining.memory import check_memory, free_for_each, lightened
from sslight.pretraining.online_probe import MethodWithProbe, training_and_labeled
from sslight.pretraining.schedule import run_length
from sslight.pretraining.task import build_pretraining_task
from sslight.train import (
    Callback,
    Placement,
    RunFolder,
    TrainingResult,
    batch_size_per_process,
    build_fabric,
    check_agreement,
    ending_with_others,
    failing_together,
    place,
    train,
    weights_in,
)
from sslight.train.machine.devices import check_compilation, with_precision
from sslight.train.machine.step_trace import check_traced
from sslight.views import build_multi_crop


@dataclass(frozen=True)
class PretrainResult:
    """A finished run: its folder, the exported backbone, and the measurements.

    ``training.metrics`` holds the last step's metrics, ``training.measurements`` the accuracies of the
    untrained network (step 0) and of every measured epoch; ``protocol`` says how they were measured.
    ``unreadable`` counts the images that were replaced, by reason; ``bad_images.csv`` in ``output`` lists them.
    """

    output: Path
    backbone: Path
    num_features: int
    num_images: int
    unreadable: dict[str, int]
    protocol: str | None
    training: TrainingResult

    def _repr_html_(self) -> str:
        """The run's report, without what needs its images, as the output of a notebook's cell."""
        return framed_report(self.output)


def pretrain(
    recipe: str | Path, overrides: Mapping[str, Any] | None = None, *, callbacks: Sequence[Callback] = (), **more: Any
) -> PretrainResult:
    """Pre-train a backbone and export it.

    Settings have the names of the command line, dotted in a mapping or nested as keywords:
    ``pretrain("dino_cnn_sslight", {"data.train": "images"}, output="runs/first", epochs=100)``.

    Args:
        recipe: ``auto`` (see :func:`sslight.plan`), name of a recipe, or path of a YAML file.
        overrides: Settings that differ from the recipe, dotted or nested; with ``auto`` also ``hours``.
        callbacks: Functions to call at log steps, at the end of epochs and of the run; they may stop the run early.
        more: The same as keywords; sections as dictionaries (``data={"train": "images"}``).

    Raises:
        ValueError: a setting, a file or the data is wrong (before anything is written).
        TrainingStopped: the loss became non-finite or a signal ended the run.
    """
    recipe, changes = os.fspath(recipe), {**(overrides or {}), **more}
    if recipe == "auto":
        hours = changes.pop("hours", None)
        return run_pretraining(auto_settings(changes, hours)[0], callbacks)
    return run_pretraining(load_recipe(recipe, changes), callbacks)


def run_pretraining(settings: PretrainSettings, callbacks: Sequence[Callback] = ()) -> PretrainResult:
    """:func:`pretrain` with settings that are already resolved."""
    planned = os.environ.get(PLANNED) == to_yaml(settings)
    try:
        return _run(settings, callbacks, planned=planned)
    finally:
        if planned:  # or the processes of a later run would take it for theirs
            os.environ.pop(PLANNED, None)


def _run(settings: PretrainSettings, callbacks: Sequence[Callback], *, planned: bool) -> PretrainResult:
    # Whatever can be refused is refused first, the cheapest first; nothing is written until all is well.
    settings = _from_public_weights(settings)
    if settings.output is None:
        raise ValueError("output is not set: give a folder for this run, such as output=runs/first.")
    if not settings.data.train:
        raise ValueError("data.train is not set: give your images, such as data.train=images (or synthetic:2000).")
    run = RunFolder(settings.output)
    placement = place(settings.devices)
    batch_size_per_process(settings, placement.world_size)
    settings, chosen = with_precision(settings, placement)
    torch.manual_seed(settings.seed)
    method = build_method(settings, placement.accelerator)
    check_compilation(settings, placement, method.backbone)
    check_optimizer(settings.optim, method)
    fabric = build_fabric(settings, placement)
    fabric.launch()
    if chosen and fabric.is_global_zero:
        print(chosen, file=sys.stderr)
    with ending_with_others():
        settings = lightened(settings, placement, fabric, method)
        result = _pretrain_together(settings, placement, fabric, method, run, callbacks, planned=planned)
        if fabric.is_global_zero:
            for callback in callbacks:
                callback.on_end(result)
        return result


def _from_public_weights(settings: PretrainSettings) -> PretrainSettings:
    """``backbone=timm:NAME`` and ``backbone=hf-hub:NAME`` are the network of that name and ``init_from`` it."""
    if not is_public(settings.backbone):
        return settings
    if settings.init_from is not None:
        raise ValueError(f"backbone={settings.backbone} names weights, and so does init_from: leave one of them out.")
    network = find_public(settings.backbone).architecture
    return settings.model_copy(update={"backbone": network, "init_from": Path(settings.backbone)})


def _pretrain_together(
    settings: PretrainSettings,
    placement: Placement,
    fabric: Fabric,
    method: Method,
    run: RunFolder,
    callbacks: Sequence[Callback],
    *,
    planned: bool,
) -> PretrainResult:
    """The rest of :func:`run_pretraining`, in which the processes wait for one another."""
    with failing_together():  # what may be wrong on one machine only
        run.check(settings)
        if settings.freeze_norms and not run.continues and not batch_norms(method.backbone):
            raise ValueError(
                f"freeze_norms=true would have no effect: backbone={settings.backbone} has no batch norms; "
                "set freeze_norms=false."
            )
        if settings.init_from is not None and not run.continues:
            weights = weights_in(str(settings.init_from))
            for network in method.networks.values():
                said = load_backbone_weights(
                    network, weights, name=settings.backbone, mean=settings.views.mean, std=settings.views.std
                )
            if fabric.is_global_zero:
                print(f"init_from={weights}:", "; ".join(said) or "all weights fit", file=sys.stderr)
        source, probe = _sources(settings, placement)
        check_enough_images(len(source), settings.batch_size, placement.world_size * settings.accumulate)
        if not planned:  # whose memory was counted, and timing its steps has taken some for good
            check_memory(settings, fabric.device.type, placement.world_size, free_for_each(placement, fabric.device))
        loader = build_view_loader(
            settings,
            source,
            build_multi_crop(settings.views),
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            local_world_size=placement.processes_per_node,
            pin_memory=fabric.device.type == "cuda",
        )
        check_traced(settings.profile, run_length(settings, loader.steps_per_epoch).total_steps)
        sets = {**({} if probe is None else probe.sets), "data.train": source}
        for name, part in sets.items():
            check_readable(part, setting=name, limits=ReadLimits(settings.data.max_pixels, settings.data.read_timeout))
        data = {name: data_fingerprint(part) for name, part in sets.items()}
    with failing_together():
        check_agreement(settings, data["data.train"], run)
        if fabric.is_global_zero:
            run.create(settings)

    num_classes = len(source.classes) if settings.probe.linear and source.classes is not None else None
    model = MethodWithProbe(method, num_features=num_features(method.backbone), num_classes=num_classes)

    def measure(backbone: nn.Module, linear: bool) -> dict[str, float]:
        assert probe is not None
        return probe.measure(backbone, fabric.device, linear=linear)

    def finish() -> list[Path]:
        save_backbone(
            method.backbone,
            run.backbone,
            name=settings.backbone,
            image_size=settings.views.global_size,
            patch_size=settings.patch_size,
            mean=settings.views.mean,
            std=settings.views.std,
            notes=further_notes(settings.init_from),
        )
        # Features of images are computed by all processes together, and this is one of them.
        images = 400 if fabric.world_size == 1 else 0
        return report_pages(run.path, images) if set(settings.logger) - {"tensorboard", "none"} else []

    with closing(loader):  # or its worker processes would outlive a failed run
        try:
            task, options = build_pretraining_task(
                settings,
                model,
                loader,
                fabric,
                measure=None if probe is None else measure,
                measured_images=1 if probe is None else probe.num_measured,
                local_world_size=placement.processes_per_node,
            )
            words = [options.placement, source_notice(source), *([] if probe is None else [f"kNN: {probe.protocol}"])]
            words += [note.removesuffix(".") for note in _notes(settings, sets, probe)]
            words += _doubts(settings, len(source))
            options = replace(options, placement="; ".join(words), data=data, callbacks=callbacks, finish=finish)
            options = replace(options, again="resume=true (and no hours)" if planned else options.again)
            result = train(task, fabric=fabric, loader=loader, run=run, options=options)
        except ValueError:
            if loader.bad_images:  # perhaps too many: then their list is wanted most
                with suppress(OSError):
                    write_bad_images(run.bad_images, loader.bad_images)
            raise
    fabric.barrier()
    return PretrainResult(
        output=run.path,
        backbone=run.backbone,
        num_features=num_features(method.backbone),
        num_images=len(source),
        unreadable=count_reasons(run.bad_images) if fabric.is_global_zero else {},
        protocol=None if probe is None else probe.protocol,
        training=result,
    )


def report_pages(run: Path, images: int = 400) -> list[Path]:
    """Make the report of a finished run; if it cannot be made, a warning says why and the list is empty."""
    try:
        return [report_runs(run, images=images).page]
    except (ValueError, OSError, RuntimeError) as error:
        print(f"warning: no report: {error}", file=sys.stderr)
        return []


def _notes(settings: PretrainSettings, sets: dict[str, Source], probe: LabeledProbe | None) -> list[str]:
    """What a reader of the accuracies must know of the labeled images."""
    data = settings.data
    notes = unmatched_notes(
        (name, data.val_labels if name == "data.val" else data.labels, part) for name, part in sets.items()
    )
    if probe is not None and probe.queries is not None and data.order == "global":
        notes += shared_notes(probe.bank, probe.queries, probe.bank_name)
    return notes


def _doubts(settings: PretrainSettings, num_images: int) -> list[str]:
    """What is allowed, but rarely meant."""
    doubts = [f"try {lower}"] if (lower := lower_rate(settings)) else []
    queue, batch = settings.moco.queue_size, settings.batch_size
    if settings.method == "moco" and queue > max(batch, num_images // 2):
        doubts.append(
            f"try moco.queue_size={max(1, num_images // 2 // batch) * batch}: with {num_images:,} images a queue of "
            f"{queue:,} keys often holds an older key of an image, as its negative"
        )
    return doubts


def _sources(settings: PretrainSettings, placement: Placement) -> tuple[Source, LabeledProbe | None]:
    """The images to train on, and the labeled probe if one is asked for."""
    data, probe = settings.data, settings.probe
    source, bank, queries = training_and_labeled(settings)
    if bank is None:
        return source, None
    assert bank.labels is not None
    assert bank.classes is not None
    bank_name = "probe.train" if probe.train else "data.val" if data.val and queries is None else "data.train"
    return source, LabeledProbe(
        bank=bank,
        bank_name=bank_name,
        bank_labels=bank.labels,
        queries=queries,
        query_labels=None if queries is None else labels_in(queries, bank.classes),
        num_classes=len(bank.classes),
        k=probe.knn_k,
        temperature=probe.knn_temperature,
        transform=EvalTransform(settings.views.global_size, settings.views.mean, settings.views.std),
        how=extraction(settings, placement),
        seed=settings.seed,
    )
