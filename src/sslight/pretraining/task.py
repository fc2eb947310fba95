"""The self-supervised task: a method and its online probe, with scheduled values, accuracies and health verdicts."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from sslight.backbones import batch_norms, count_statistics_once, norms_computed_again
from sslight.config import PretrainSettings
from sslight.data import ViewLoader, available_cores, default_workers, loader_workers
from sslight.methods import Network
from sslight.optim import build_optimizer, clip_gradients, parameter_groups, set_rates
from sslight.pretraining.health import HealthWatch, health_line
from sslight.pretraining.memory import flops_per_image
from sslight.pretraining.online_probe import MethodWithProbe
from sslight.pretraining.schedule import RunLength, rates_at, run_length, values_at
from sslight.train.machine.advice import waiting_advice
from sslight.train.machine.clock import StepClock
from sslight.train.machine.devices import placement_line, synchronize_batch_norm
from sslight.train.task import Output, RunOptions, Task, Verdict
from sslight.views import ViewBatch, normalize

Measure = Callable[[nn.Module, bool], dict[str, float]]
"""Accuracies of a backbone by name; the flag asks for the slower ones too."""

Inputs = tuple[Tensor, Tensor | None]
"""Normalized global and local views, float32 ``[V·B, 3, S, S]``."""


def build_pretraining_task(
    settings: PretrainSettings,
    model: MethodWithProbe,
    loader: ViewLoader,
    fabric: Fabric,
    *,
    measure: Measure | None = None,
    measured_images: int = 1,
    local_world_size: int = 1,
    clock: StepClock | None = None,
) -> tuple[Task, RunOptions]:
    """What the loop needs to pre-train ``model``, which is changed in place, as the settings ask for it.

    ``measure`` gives the accuracies at epoch ends, of ``measured_images``; ``local_world_size`` counts the training
    processes on this machine. Fabric must be launched.
    """
    length = run_length(settings, loader.steps_per_epoch)
    method = model.method
    if settings.compile:
        for network in method.children():
            assert isinstance(network, Network)
            network.compile_backbone(None if settings.compile is True else settings.compile)
    fused = fabric.device.type == "cuda" and settings.precision != "16"
    optimizer = build_optimizer(settings.optim, parameter_groups(model), fused=fused)
    model.to(memory_format=torch.channels_last)
    synchronize_batch_norm(model, fabric)
    if settings.grad_checkpointing is True:
        count_statistics_once(method.backbone)  # of norms as they are now
    rows = settings.batch_size // fabric.world_size // settings.accumulate
    health = HealthWatch(settings, rows=rows, measured=measured_images)
    step = _Pretraining(settings, model, length, clock or StepClock(), health)
    workers, cores = loader_workers(settings, local_world_size), max(1, available_cores() // local_world_size)

    def epoch_lines(metrics: dict[str, float], verdict: Verdict, waiting: float) -> list[str]:
        advice = waiting_advice(
            waiting,
            workers=workers,
            default=default_workers(local_world_size),
            cores=cores,
            on_gpu=fabric.device.type == "cuda",
        )
        lines = [] if advice is None or step.advised else [advice]
        step.advised = step.advised or advice is not None
        if "feature_spread" in metrics:
            lines.append(health_line(metrics, rows, verdict))
        lines += filter(None, [health.stopped_paying(length.total_steps)])
        return lines

    def set_scheduled(number: int) -> dict[str, float]:
        rates, values = rates_at(number, settings, length)._asdict(), values_at(number, settings, length)
        set_rates(optimizer, **rates)
        shown = {"momentum": values.momentum, "teacher_temp": values.teacher_temp}
        return rates | {name: value for name, value in shown.items() if value is not None}

    task = Task(
        module=model,
        optimizer=optimizer,
        loss=step.loss,
        set_rates=set_scheduled,
        total_steps=length.total_steps,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        begin_step=step.begin,
        end_step=lambda number: method.end_step(values_at(number, settings, length)),
        finish_gradients=step.finish_gradients,
        indicators=health.features.health,
        judge=health.judge,
        watched=health,
        measure=None if measure is None else lambda final: measure(method.backbone, final),
        measure_every=settings.probe.every_epochs,
        epoch_lines=epoch_lines,
        remedy=partial(_remedy, settings),
    )
    options = RunOptions(
        settings=settings,
        at_epoch_ends=True,
        **settings.checkpoint.model_dump(),
        max_skipped_batches=settings.optim.max_skipped_batches,
        flops_per_image=flops_per_image(settings) if fabric.device.type == "cuda" else None,
        traced_steps=settings.profile,
        lean=bool(settings.grad_checkpointing),
        placement=placement_line(fabric, workers=workers, cores=cores),
        beginning=settings.beginning,
        lighter=_lighter(settings),
    )
    return task, options


class _Pretraining:
    """One step of a method: normalized views in, loss and indicators out."""

    def __init__(
        self,
        settings: PretrainSettings,
        model: MethodWithProbe,
        length: RunLength,
        clock: StepClock,
        health: HealthWatch,
    ) -> None:
        self._settings, self._method, self._length, self._clock = settings, model.method, length, clock
        self._health = health
        networks = self._method.networks.values() if settings.freeze_norms else ()
        self._frozen_norms = [norm for network in networks for norm in batch_norms(network)]
        self._inputs: Inputs | None = None
        self.advised = False

    def begin(self, step: int) -> None:
        if self._settings.compile:
            # With reduce-overhead a step writes over the results of the one before.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        for norm in self._frozen_norms:
            norm.eval()
        self._method.begin_step(values_at(step, self._settings, self._length))

    def loss(self, wrapped: nn.Module, batch: ViewBatch, step: int) -> Output:
        with self._clock.part("normalization"):  # into the views of the step before: its gradients are done
            self._inputs = normalized(batch, self._settings, memory=self._inputs)
        values = values_at(step, self._settings, self._length)
        with self._keeping():
            output = wrapped(*self._inputs, batch.labels, values)
        self._health.features.add(output["features"])
        return Output(output["loss"], output["scalars"])

    def _keeping(self) -> AbstractContextManager[None]:
        mode = self._settings.grad_checkpointing
        if mode is True or self._settings.compile:
            return nullcontext()
        return norms_computed_again(largest_only=mode is False)

    def finish_gradients(self, step: int) -> None:
        if self._settings.optim.clip_grad is not None:
            clip_gradients(self._method.parameters(), self._settings.optim.clip_grad)
        frozen = self._method.frozen_parameters(values_at(step, self._settings, self._length))
        if step < self._length.in_steps(self._settings.freeze_backbone_epochs):
            frozen = [*frozen, *self._method.backbone.parameters()]
        for parameter in frozen:
            parameter.grad = None  # removed, not zeroed: the optimizer then leaves it alone altogether


def normalized(batch: ViewBatch, settings: PretrainSettings, *, memory: Inputs | None) -> Inputs:
    """The views of a batch on its device, written over those in ``memory`` if there are any."""
    mean, std = settings.views.mean, settings.views.std
    out_globals, out_locals = (None, None) if memory is None else memory
    local_views = None if batch.local_views is None else normalize(batch.local_views, mean, std, out=out_locals)
    return normalize(batch.global_views, mean, std, out=out_globals), local_views


def _lighter(settings: PretrainSettings) -> str:
    parts = [
        f"a smaller batch_size, or the same one in accumulate={2 * settings.accumulate} parts",
        {
            False: "" if settings.compile else "grad_checkpointing=norms or true (may change on resume)",
            "norms": "grad_checkpointing=true (may change on resume)",
        }.get(settings.grad_checkpointing, ""),
        "precision=bf16" if settings.precision == "32" else "",
        "fewer or smaller views (views.num_local, views.local_size, views.global_size)",
        "fewer workers (may change on resume)",
    ]
    return ", ".join(filter(None, parts))


def _remedy(settings: PretrainSettings, newest: Path | None) -> str:
    ways = ["a lower lr"]
    if settings.method != "swav" and (settings.dino if settings.method == "dino" else settings.moco).koleo_weight:
        ways.append(f"a lower {settings.method}.koleo_weight")
    if settings.precision != "32":
        ways.append("precision=32")
    from_last = "" if newest is None else f", or from init_from={newest}"
    return f"start a new run with {' or '.join(ways)}{from_last}."
