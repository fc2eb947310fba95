"""The training loop: one file, read top to bottom, for every task and any number of processes."""

import math
import time
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.nn.utils import get_total_norm

from sslight.backbones import slow_precision
from sslight.data import merge_bad_images, write_bad_images
from sslight.train.finite import FiniteWatch, all_finite
from sslight.train.machine.clock import StepClock, Throughput
from sslight.train.machine.distributed import host_group
from sslight.train.machine.interrupts import stop_signals
from sslight.train.machine.memory import keep_freed_memory
from sslight.train.machine.prefetch import DeviceBatches
from sslight.train.machine.step_trace import StepTrace
from sslight.train.processes import agree_on_buffers, agreed, mean_scalars, reduce_scalars
from sslight.train.record.checkpoints import CheckpointWriter
from sslight.train.record.progress import accuracies
from sslight.train.record.run_folder import RunFolder
from sslight.train.record.run_log import RunLog
from sslight.train.run_state import RunState, seed_all
from sslight.train.task import Loader, RunOptions, Task, TrainingStopped


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
    task: Task,
    *,
    fabric: Fabric,
    loader: Loader,
    run: RunFolder,
    options: RunOptions,
    clock: StepClock | None = None,
) -> TrainingResult:
    """Train a task from the start or from the run folder's last checkpoint.

    A complete run is left as it is. The task is on the CPU and is moved to the device of the (launched) Fabric. The run
    folder exists. ``clock`` records the time of the parts of each step.

    Raises:
        TrainingStopped: a loss, gradient or weight is not finite, memory ran out, or a signal asked the run to end
            (a checkpoint is written first).
        ValueError: the checkpoint is damaged, or of another run or other images, or too many images are unreadable.
    """
    # ---- Set up ---------------------------------------------------------------------------------------------
    settings = options.settings
    if fabric.device.type == "cpu":
        keep_freed_memory(large_too=not options.lean)
    clock = StepClock() if clock is None else clock
    optimizer, hosts = task.optimizer, host_group()
    wrapped, optimizer_ = fabric.setup(task.module, optimizer)
    parameters = [p for p in task.module.parameters() if p.requires_grad]
    seed_all(settings.seed + fabric.global_rank)  # from here on processes draw differently (drop path, proposals)

    state = RunState(task, fabric, loader, options, run)
    log = RunLog(run, fabric, task, options, loader.steps_per_epoch)
    checkpoints = CheckpointWriter(run.checkpoints, keep_last=options.keep_last)
    passed_over = state.restore() if run.continues else []
    if state.step >= task.total_steps and run.backbone.exists() and settings.resume is True:
        raise ValueError(f"the run in {run.path} is complete ({state.step} steps): there is nothing to resume.")
    watch = FiniteWatch(fabric.device, world_size=fabric.world_size, scaled=settings.precision == "16")
    throughput = Throughput(
        task.batch_size,
        fabric.device,
        fabric.world_size,
        flops_per_image=options.flops_per_image,
        precision=settings.precision,
    )
    last_checkpoint = time.perf_counter()
    batches: DeviceBatches[Any] | None = None

    # ---- Train ----------------------------------------------------------------------------------------------
    trace = StepTrace(run.path / "trace.json", options.traced_steps if fabric.is_global_zero else None)
    with closing(checkpoints), closing(trace), log, stop_signals() as stop, state.memory_in_words(clock):
        log.begin(state.step)
        for sentence in (options.placement, *passed_over, slow_precision(settings.precision, fabric.device)):
            log.say(sentence)
        if task.measure is not None and state.step == 0:
            with throughput.paused(measuring=True), clock.part("measurement"):
                log.say(f"{options.beginning}: " + accuracies(state.measure(log, epoch=0, final=True)))
        wrapped.train()
        throughput.begin(state.step)

        while state.step < task.total_steps:
            step = state.step
            epoch, step_in_epoch = divmod(step, loader.steps_per_epoch)
            if batches is None:
                batches = DeviceBatches(loader.epoch(epoch, start_step=step_in_epoch), fabric.device)

            # One step, in ``accumulate`` parts.
            skipping = step in state.skipped_steps
            clock.begin_step()
            rates = task.set_rates(step)
            with clock.part("teacher update"):
                task.begin_step(step)
            outputs, indices = [], []
            for part in range(task.accumulate):
                last_part = part + 1 == task.accumulate
                with clock.part("data wait"), throughput.data_wait.measured():
                    batch = next(batches)
                if skipping:
                    continue
                with fabric.no_backward_sync(wrapped, enabled=not last_part):
                    with clock.part("loss"):
                        output = task.loss(wrapped, batch, step)
                    with clock.part("backward"):
                        fabric.backward(output.loss / task.accumulate)
                outputs.append(output)
                indices.append(batch.indices)
                if not last_part:
                    with clock.part("data wait"), throughput.data_wait.measured():
                        batches.prefetch()
            epoch_ends = step_in_epoch + 1 == loader.steps_per_epoch
            overdue = time.perf_counter() - last_checkpoint > 60 * (options.every_minutes or math.inf)
            asked_to_stop, overdue, enough = agreed([bool(stop), overdue, log.enough], hosts, step)
            run_ends = enough or step + 1 == task.total_steps
            due = overdue or (options.every_steps is not None and (step + 1) % options.every_steps == 0)
            saving = (epoch_ends and options.at_epoch_ends) or run_ends or asked_to_stop or due
            if not saving:  # or the loader's state in the checkpoint would be ahead of the step
                with clock.part("data wait"), throughput.data_wait.measured():
                    batches.prefetch()
            logging = not skipping and (saving or (step + 1) % settings.log_every == 0)
            if not skipping:
                fabric.strategy.precision.unscale_gradients(optimizer)
                task.finish_gradients(step)
                grad_norm = get_total_norm(p.grad for p in parameters if p.grad is not None)
                if not task.may_diverge:
                    loss = torch.stack([output.loss.detach() for output in outputs]).mean()
                    watch.note(step, loss=loss, grad_norm=grad_norm, indices=indices)
            trouble = watch.found(now=logging or saving)
            if trouble is not None:
                log.tell(checkpoints.failure(wait=True))
                state.go_back(trouble, log)
                optimizer_.zero_grad()
                batches = None
                throughput.begin(state.step)
                continue
            if not skipping:
                with clock.part("optimizer"):
                    optimizer_.step()
                    optimizer_.zero_grad()
                with clock.part("teacher update"):
                    task.end_step(step)
            clock.end_step()
            trace.end_step()
            state.step = step + 1

            # Log it. The host waits for the device here.
            if logging:
                scalars = mean_scalars([output.scalars for output in outputs]) | task.indicators()
                metrics = {name: float(value) for name, value in reduce_scalars(fabric, scalars).items()}
                metrics |= task.figures(metrics)
                # With scaled gradients, the loss of another process may be the one that is not finite.
                if not math.isfinite(metrics["loss"]) and not task.may_diverge:
                    raise TrainingStopped(
                        f"the loss became {metrics['loss']} in the {settings.log_every} steps before step {step + 1}: "
                        f"{task.remedy(run.newest_checkpoint)}"
                    )
                state.metrics = metrics | {"grad_norm": float(grad_norm)} | rates | throughput.look(step + 1)
                log.record(step + 1, epoch, state.metrics)
                log.tell(checkpoints.failure(wait=False))
            log.show(step + 1, epoch, state.metrics)

            # Save it.
            if epoch_ends or run_ends:
                batches = None
                with throughput.paused(measuring=True), clock.part("measurement"):
                    if task.measure is not None and (run_ends or (epoch + 1) % task.measure_every == 0):
                        state.metrics |= state.measure(log, epoch=epoch, final=run_ends)
                    log.end_epoch(epoch, state.metrics)
                    for line in task.epoch_lines(state.metrics, log.verdict, throughput.waiting_share()):
                        log.say_once(line, "  " + line)
            if saving:
                with throughput.paused(), clock.part("checkpoint"):
                    # The update may have failed although the loss before it was fine: nothing broken is saved.
                    if not task.may_diverge and not all_finite(task.module):
                        remedy = task.remedy(run.newest_checkpoint)
                        raise TrainingStopped(f"the weights or buffers became non-finite by step {step + 1}: {remedy}")
                    names = []
                    if options.every_epochs and epoch_ends and (epoch + 1) % options.every_epochs == 0:
                        names.append(f"epoch_{epoch + 1:04}.pt")
                    if options.keep_best and state.is_best():
                        names.append("best.pt")
                    log.tell(checkpoints.failure(wait=True))
                    content = state.state_dict()
                    if fabric.is_global_zero:
                        checkpoints.write(content, also_as=names)
                        bad_images = merge_bad_images(each["loader"] for each in content["processes"])
                        log.attempt(partial(write_bad_images, run.bad_images, bad_images))
                    fabric.barrier()
                    if run_ends or asked_to_stop:
                        checkpoints.finish(fabric)
                    last_checkpoint = time.perf_counter()
            if asked_to_stop and not run_ends:
                who = stop[0] if stop else "a signal to another process"
                again = "the same command" if settings.resume == "auto" else f"the same command with {options.again}"
                raise TrainingStopped(
                    f"stopped by {who} after step {step + 1} of {task.total_steps}; everything is in "
                    f"{run.last_checkpoint}: {again} continues."
                )
            if run_ends:
                break

        agree_on_buffers(task.module, fabric)
        if fabric.is_global_zero:
            log.keep(options.finish())

    seconds, images_per_second, waiting = throughput.whole(state.step)
    return TrainingResult(
        state.step, seconds, images_per_second, waiting, metrics=state.metrics, measurements=state.measurements
    )
