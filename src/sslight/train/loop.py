"""The training loop: one file, read from top to bottom, for every method and number of processes."""

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from sslight.backbones import slow_precision
from sslight.config import PretrainSettings
from sslight.data import ViewLoader, available_cores, default_workers, loader_workers, merge_bad_images
from sslight.optim import build_optimizer, clip_gradients, parameter_groups, set_rates
from sslight.pretraining.health import EARLY, HealthWatch, feature_health, health_line
from sslight.pretraining.probes import MethodWithProbe, step_values
from sslight.pretraining.schedule import rates_at, run_length, values_at
from sslight.train.advice import waiting_advice
from sslight.train.checkpoints import (
    CheckpointWriter,
    due_by_step,
    due_by_time,
    is_best,
    kept_checkpoints,
    load_newest,
    process_states,
    restore_process,
)
from sslight.train.clock import DataWait, StepClock
from sslight.train.devices import placement_line
from sslight.train.finite import FiniteWatch, NotFinite, all_finite, gradient_norm
from sslight.train.interrupts import failed_threads, stop_signals
from sslight.train.memory import keep_freed_memory
from sslight.train.prefetch import DeviceBatches
from sslight.train.processes import agreed, mean_scalars, reduce_scalars
from sslight.train.progress import TrainingProgress, accuracies, epoch_line, step_figures
from sslight.train.run_folder import RunFolder
from sslight.views import ViewBatch, normalize

Measure = Callable[[nn.Module, bool], dict[str, float]]
"""Accuracies of a backbone by name; the flag asks for the slower ones too (at the start and at the end)."""


class TrainingStopped(RuntimeError):
    """Training ended before its last step; the message says why and how to go on."""


@dataclass
class TrainingResult:
    """What a finished run reports."""

    steps: int
    seconds: float
    images_per_second: float
    data_wait_share: float
    metrics: dict[str, float] = field(default_factory=dict)
    measurements: list[dict[str, float]] = field(default_factory=list)


def train(
    settings: PretrainSettings,
    *,
    fabric: Fabric,
    model: MethodWithProbe,
    loader: ViewLoader,
    run: RunFolder,
    measure: Measure | None = None,
    local_world_size: int = 1,
    clock: StepClock | None = None,
) -> TrainingResult:
    """Train ``model`` on the batches of ``loader``, from the start or from the run folder's last checkpoint.

    Args:
        settings: The run's settings; only schedules, logging, checkpoints and accumulation are read here.
        fabric: Launched Fabric; gives device, precision and processes.
        model: The method with its online probe, not yet set up.
        loader: Gives each epoch's view batches to this process.
        run: An existing run folder.
        measure: Accuracies of the backbone at epoch ends, or None.
        local_world_size: Training processes on this machine.
        clock: Notes the time of the parts of each step; None does not.

    Raises:
        TrainingStopped: the loss is not finite, or a signal asked the run to end (a checkpoint is written first).
        ValueError: the checkpoint is damaged, or more images than ``data.max_bad_share`` are unreadable.
    """
    # ---- Set up ---------------------------------------------------------------------------------------------
    length = run_length(settings, loader.steps_per_epoch)
    if fabric.device.type == "cpu":
        keep_freed_memory()
    method = model.method
    clock = StepClock() if clock is None else clock
    if settings.compile:
        for network in method.networks.values():
            network.compile()  # in place: names and state stay; one graph for each view size
    optimizer = build_optimizer(settings.optim, parameter_groups(model))
    model.to(memory_format=torch.channels_last)
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        model = convert_sync_batchnorm(model)  # timm's: torch's own drops the activation in BatchNormAct2d
    wrapped, optimizer_ = fabric.setup(model, optimizer)
    parameters = [p for p in model.parameters() if p.requires_grad]

    first_step = 0
    measurements: list[dict[str, float]] = []
    metrics: dict[str, float] = {}
    skipped: list[int] = []
    health = HealthWatch(settings, rows=settings.batch_size // fabric.world_size // settings.accumulate)
    checkpoints = CheckpointWriter(run.checkpoints, keep_last=settings.checkpoint.keep_last)
    writer = None

    def restore() -> list[str]:
        """Put everything back as the newest intact checkpoint has it; sentences on those that are not."""
        nonlocal first_step, measurements, metrics, skipped, writer
        checkpoint = load_newest(run.checkpoints)
        state = checkpoint.state
        try:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            fabric.strategy.precision.load_state_dict(state["precision"])
            first_step, measurements, metrics = state["step"], state["measurements"], state["metrics"]
            skipped = state.get("skipped_steps", [])
            health.load_state_dict(state.get("health", []))
            restore_process(state["processes"], fabric, loader, seed=settings.seed + first_step)
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{checkpoint.path} does not belong to this run ({str(error).splitlines()[0]}): start a new run."
            ) from None
        if fabric.world_size > 1:
            found: list[Any] = [None] * fabric.world_size
            dist.all_gather_object(found, (checkpoint.path.name, first_step))
            if len(set(found)) > 1:
                raise ValueError(
                    f"the processes read different checkpoints in {run.checkpoints} ({found}): output must be a folder "
                    "that all of them share."
                )
        if fabric.is_global_zero:
            checkpoint.set_damaged_aside()
        return checkpoint.passed_over

    def begin_log() -> None:
        """Let metrics.jsonl and the TensorBoard events go on from ``first_step``."""
        nonlocal writer
        if fabric.is_global_zero:
            run.drop_metrics_after(first_step)
            if writer is not None:
                writer.close()
            if settings.logger == "tensorboard":
                writer = SummaryWriter(str(run.tensorboard), purge_step=first_step + 1 if first_step else None)

    passed_over: list[str] = []
    if run.continues:
        passed_over = restore()
        if first_step >= length.total_steps and run.backbone.exists() and settings.resume is True:
            raise ValueError(f"the run in {run.path} is complete ({first_step} steps): there is nothing to resume.")
    begin_log()

    def checkpoint(step: int, *, keep_as: list[str]) -> None:
        """Start to write the state after ``step`` steps."""
        tell(checkpoints.failure(wait=True))
        processes = process_states(fabric, loader)
        if fabric.is_global_zero:
            state = {
                "settings": settings.model_dump(mode="json"),
                "step": step,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "precision": fabric.strategy.precision.state_dict(),
                "processes": processes,
                "measurements": measurements,
                "metrics": metrics,
                "skipped_steps": skipped,
                "health": health.state_dict(),
            }
            checkpoints.write(state, also_as=keep_as)
            try:
                run.write_bad_images(merge_bad_images(process["loader"] for process in processes))
            except OSError as error:
                tell(error)
        fabric.barrier()

    def go_back(trouble: NotFinite) -> None:
        """Return to the last checkpoint, from where the batch of ``trouble`` will be passed by; or end the run."""
        tell(checkpoints.failure(wait=True))
        fabric.barrier()  # the first process may have been writing
        kept = kept_checkpoints(run.checkpoints)
        passing_by = bool(kept) and len(skipped) < settings.optim.max_skipped_batches
        if fabric.is_global_zero:
            action = "passed by" if passing_by else "stopped"
            note = {"step": trouble.step + 1, "what": trouble.what, "action": action, "indices": trouble.indices}
            try:
                run.append_nonfinite(note)
            except OSError as error:
                tell(error)
        if not passing_by:
            again = f", after {len(skipped)} batch(es) had been passed by" if skipped else ""
            from_last = f", or from init_from={kept[0]}" if kept else ""
            raise TrainingStopped(
                f"{trouble.what} at step {trouble.step + 1}{again} (its images are listed in {run.nonfinite}): "
                f"start a new run with a lower lr or precision=32{from_last}."
            )
        passed = [*skipped, trouble.step]
        sentences = restore()
        skipped[:] = passed
        optimizer_.zero_grad()
        try:
            begin_log()
        except OSError as error:
            tell(error)
        for sentence in sentences:
            progress.say(sentence)
        progress.say(
            f"{trouble.what} at step {trouble.step + 1}: back to the checkpoint of step {first_step}, from where this "
            f"batch is passed by; its images are listed in {run.nonfinite}"
        )

    def measure_at(step: int, *, linear: bool) -> dict[str, float]:
        if measure is None:
            return {}
        if fabric.world_size > 1:  # without synchronised batch norm each process has its own statistics
            for buffer in method.backbone.buffers():
                dist.broadcast(buffer, src=0)
        result = measure(method.backbone, linear)
        measurements.append({"step": float(step), **result})
        return result

    told: set[str] = set()

    def tell(failure: OSError | None) -> None:
        """Say, once, what could not be written; the run goes on, and a checkpoint is tried again when one is due."""
        if failure is not None:
            name = failure.filename or run.tensorboard  # TensorBoard's errors have lost the name
            if str(name) not in told:
                told.add(str(name))
                progress.say(f"warning: {name} was not written: {failure.strerror}. The run goes on.")

    def record(step: int, epoch: int, figures: dict[str, float], **words: str) -> None:
        if fabric.is_global_zero:
            try:
                run.append_metrics({"step": step, "epoch": epoch, **figures, **words})
                if writer is not None:
                    for name, value in figures.items():
                        writer.add_scalar(name, value, step)
            except OSError as error:
                tell(error)

    # ---- Train ----------------------------------------------------------------------------------------------
    started = last_checkpoint = window_start = time.perf_counter()
    data_wait = DataWait(fabric.device)
    waited = measuring = 0.0
    advised = False
    workers, cores = loader_workers(settings, local_world_size), max(1, available_cores() // local_world_size)
    window_step = first_step
    progress = TrainingProgress(
        total_steps=length.total_steps,
        first_step=first_step,
        num_epochs=length.num_epochs,
        shown=fabric.is_global_zero,
    )
    verdict = EARLY
    told_of: set[str] = set()
    watch = FiniteWatch(fabric.device, world_size=fabric.world_size, scaled=settings.precision == "16")
    with closing(checkpoints), progress, failed_threads(tell), stop_signals() as stop:
        for sentence in passed_over:
            progress.say(sentence)
        if (warning := slow_precision(settings.precision, fabric.device)) is not None:
            progress.say(warning)
        if measure is not None and first_step == 0:
            progress.update(step=0, epoch=0, figures="measuring the untrained network")
            untrained = measure_at(0, linear=True)
            record(0, 0, untrained)
            progress.say("untrained: " + accuracies(untrained))
            measuring += time.perf_counter() - started
            window_start = time.perf_counter()
        wrapped.train()
        progress.say(placement_line(fabric, workers=workers, cores=cores))
        batches = None
        inputs = None

        step = first_step
        while step < length.total_steps:
            epoch, step_in_epoch = divmod(step, length.steps_per_epoch)
            if batches is None:
                batches = DeviceBatches(loader.epoch(epoch, start_step=step_in_epoch), fabric.device)

            # One step, in ``accumulate`` parts.
            passing_by = step in skipped
            clock.begin_step()
            values = values_at(step, settings, length)
            rates = rates_at(step, settings, length)
            set_rates(optimizer, lr=rates.lr, weight_decay=rates.weight_decay)
            with clock.part("teacher update"):
                method.begin_step(values)
            outputs, indices = [], []
            for part in range(settings.accumulate):
                last_part = part + 1 == settings.accumulate
                # A batch: uint8 [V, B, 3, S, S] for each view size.
                with clock.part("data wait"), data_wait.measured():
                    batch = next(batches)
                if passing_by:
                    continue
                with clock.part("normalisation"):
                    inputs = normalized(batch, settings, memory=inputs)  # of the step before: its gradients are done
                with fabric.no_backward_sync(wrapped, enabled=not last_part):
                    with clock.part("loss"):
                        output = wrapped(*inputs, batch.labels, step_values(values))
                    with clock.part("backward"):
                        fabric.backward(output["loss"] / settings.accumulate)
                outputs.append(output)
                indices.append(batch.indices)
                if not last_part:
                    with clock.part("data wait"), data_wait.measured():
                        batches.prefetch()
            epoch_ends = step_in_epoch + 1 == length.steps_per_epoch
            run_ends = step + 1 == length.total_steps
            asked_to_stop, time_is_up = agreed(
                [bool(stop), due_by_time(last_checkpoint, settings.checkpoint.every_minutes)], fabric, step
            )
            saving = (
                epoch_ends
                or run_ends
                or asked_to_stop
                or time_is_up
                or due_by_step(step + 1, settings.checkpoint.every_steps)
            )
            if not saving:  # or the loader's state in the checkpoint would be ahead of the step
                with clock.part("data wait"), data_wait.measured():
                    batches.prefetch()
            # Nothing is saved without a look at it.
            logging = not passing_by and (saving or (step + 1) % settings.log_every == 0)
            if not passing_by:
                if logging or settings.optim.clip_grad is not None:
                    fabric.strategy.precision.unscale_gradients(optimizer)
                if settings.optim.clip_grad is not None:
                    clip_gradients(method.parameters(), settings.optim.clip_grad)
                for parameter in method.frozen_parameters(values):
                    parameter.grad = None  # removed, not zeroed: the optimiser then leaves it alone altogether
                grad_norm = gradient_norm(parameters)
                loss = torch.stack([output["loss"].detach() for output in outputs]).mean()
                watch.note(step, loss=loss, grad_norm=grad_norm, indices=indices)
            trouble = watch.found(now=logging or saving)
            if trouble is not None:
                go_back(trouble)
                batches, step = None, first_step
                window_start, window_step, waited = time.perf_counter(), step, data_wait.seconds()
                continue
            if not passing_by:
                with clock.part("optimiser"):
                    optimizer_.step()
                    optimizer_.zero_grad()
                with clock.part("teacher update"):
                    method.end_step(values)
            clock.end_step()

            # Look at it. The host waits for the device here and, with several processes, in agreed().
            if logging:
                spread_and_rank = feature_health(outputs[0]["features"])
                scalars = mean_scalars([output["scalars"] for output in outputs]) | spread_and_rank
                metrics = {name: float(value) for name, value in reduce_scalars(fabric, scalars).items()}
                if not math.isfinite(metrics["loss"]):  # of another process, with scaled gradients
                    since = max(first_step, step + 1 - settings.log_every) + 1
                    raise TrainingStopped(
                        f"the loss became {metrics['loss']} between step {since} and {step + 1}: "
                        "start a new run with a lower lr or precision=32."
                    )
                metrics["grad_norm"] = float(grad_norm)
                now = time.perf_counter()
                scheduled = {"momentum": values.momentum, "teacher_temp": values.teacher_temp}
                metrics |= {
                    "lr": rates.lr,
                    "weight_decay": rates.weight_decay,
                    **{name: value for name, value in scheduled.items() if value is not None},
                    "images_per_second": (step + 1 - window_step) * settings.batch_size / (now - window_start),
                    "data_wait_share": (data_wait.seconds() - waited) / (now - window_start),
                }
                window_start, window_step, waited = now, step + 1, data_wait.seconds()
                verdict = health.judge(step + 1, metrics)
                trouble_seen = f"{verdict.state} {verdict.finding.partition('(')[0]}"
                if verdict.state in ("watch", "collapsed") and trouble_seen not in told_of:
                    told_of.add(trouble_seen)
                    progress.say(f"step {step + 1}: {verdict}")
                record(step + 1, epoch, metrics, health=verdict.state)
                tell(checkpoints.failure(wait=False))
            progress.update(step=step + 1, epoch=epoch, figures=step_figures(metrics, verdict))

            # Keep it.
            if epoch_ends or run_ends:
                batches = None
                pause = time.perf_counter()
                if measure is not None and (run_ends or (epoch + 1) % settings.probe.every_epochs == 0):
                    accuracy = measure_at(step + 1, linear=run_ends)
                    record(step + 1, epoch, accuracy)
                    metrics |= accuracy
                measuring += time.perf_counter() - pause
                window_start += time.perf_counter() - pause
                progress.say(epoch_line(epoch, length.num_epochs, metrics))
                advice = waiting_advice(
                    waited / (time.perf_counter() - started - measuring),
                    workers=workers,
                    default=default_workers(local_world_size),
                    cores=cores,
                    on_gpu=fabric.device.type == "cuda",
                )
                if advice is not None and not advised:
                    progress.say("  " + advice)
                    advised = True
                if "feature_spread" in metrics:
                    progress.say("  " + health_line(metrics, settings.batch_size // fabric.world_size, verdict))
            if saving:
                pause = time.perf_counter()
                # The update may have gone wrong where the loss before it was fine: nothing broken is saved.
                if not all_finite(parameters):
                    from_last = f", or from init_from={kept[0]}" if (kept := kept_checkpoints(run.checkpoints)) else ""
                    raise TrainingStopped(
                        f"the weights became non-finite by step {step + 1}: "
                        f"start a new run with a lower lr or precision=32{from_last}."
                    )
                keep_as = []
                every_epochs = settings.checkpoint.every_epochs
                if every_epochs and epoch_ends and (epoch + 1) % every_epochs == 0:
                    keep_as.append(f"epoch_{epoch + 1:04}.pt")
                if settings.checkpoint.keep_best and is_best(measurements, step + 1):
                    keep_as.append("best.pt")
                checkpoint(step + 1, keep_as=keep_as)
                if run_ends or asked_to_stop:
                    checkpoints.finish(fabric)
                last_checkpoint = time.perf_counter()
                window_start += last_checkpoint - pause
            if asked_to_stop and not run_ends:
                who = stop[0] if stop else "a signal to another process"
                raise TrainingStopped(
                    f"stopped by {who} after step {step + 1} of {length.total_steps}; everything is in "
                    f"{run.last_checkpoint}: the same command with resume=true continues."
                )
            step += 1

    if writer is not None:
        try:
            writer.close()
        except OSError as error:
            tell(error)
    seconds = time.perf_counter() - started
    busy = max(seconds - measuring, 1e-9)
    return TrainingResult(
        steps=length.total_steps,
        seconds=seconds,
        images_per_second=(length.total_steps - first_step) * settings.batch_size / busy,
        data_wait_share=waited / busy,
        metrics=metrics,
        measurements=measurements,
    )


# ---- Small parts of the loop --------------------------------------------------------------------------------


Inputs = tuple[Tensor, Tensor | None]
"""Normalised global and local views, float32 ``[V·B, 3, S, S]``."""


def normalized(batch: ViewBatch, settings: PretrainSettings, *, memory: Inputs | None) -> Inputs:
    """The views of a batch on its device, written over those in ``memory`` if there are any."""
    mean, std = settings.views.mean, settings.views.std
    out_globals, out_locals = (None, None) if memory is None else memory
    local_views = None if batch.local_views is None else normalize(batch.local_views, mean, std, out=out_locals)
    return normalize(batch.global_views, mean, std, out=out_globals), local_views
