"""The training loop of a detector: the pre-training loop's parts, with losses instead of views."""

import math
import time
from collections.abc import Callable
from contextlib import closing

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter

from sslight.backbones import slow_precision
from sslight.config import DetectSettings
from sslight.data import DetectionLoader, merge_bad_images
from sslight.optim import set_rates
from sslight.train.checkpoints import (
    CheckpointWriter,
    due_by_step,
    due_by_time,
    load_newest,
    process_states,
    restore_process,
)
from sslight.train.finite import all_finite, gradient_norm
from sslight.train.interrupts import stop_signals
from sslight.train.loop import TrainingResult, TrainingStopped
from sslight.train.processes import agreed, reduce_scalars
from sslight.train.progress import TrainingProgress, step_figures
from sslight.train.run_folder import RunFolder


def train_detector(
    settings: DetectSettings,
    *,
    fabric: Fabric,
    detector: nn.Module,
    build_optimizer: Callable[[nn.Module], Optimizer],
    rate_at: Callable[[int], float],
    total_steps: int,
    loader: DetectionLoader,
    run: RunFolder,
) -> TrainingResult:
    """Train a detector, from the start or from the run folder's last checkpoint; a complete run is left as it is.

    Args:
        settings: Only the batch, decay, logging, checkpoints and resume are read here.
        fabric: Launched Fabric; gives device, precision and processes.
        detector: Gives losses by name for a list of images [3, h, w] of 0–1 and their targets; changed in place.
        build_optimizer: For the detector as it will be trained.
        rate_at: Learning rate of a step, counted from 0.
        total_steps: Length of the run.
        loader: Gives each epoch's batches to this process.
        run: An existing run folder.

    Raises:
        TrainingStopped: the loss is not finite, or a signal asked the run to end (a checkpoint is written first).
        ValueError: the checkpoint is damaged or of another run, or too many images are unreadable.
    """
    # ---- Set up ---------------------------------------------------------------------------------------------
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        detector.backbone = convert_sync_batchnorm(detector.backbone)
    optimizer = build_optimizer(detector)
    wrapped, optimizer_ = fabric.setup(detector, optimizer)
    parameters = [p for p in detector.parameters() if p.requires_grad]
    torch.manual_seed(settings.seed + fabric.global_rank)  # the detector samples anchors and proposals

    first_step = 0
    metrics: dict[str, float] = {}
    passed_over: list[str] = []
    if run.continues:
        first_step, metrics, passed_over = _resume(run, fabric, detector, optimizer, loader, settings.seed)
        if fabric.is_global_zero:
            run.drop_metrics_after(first_step)
    checkpoints = CheckpointWriter(run.checkpoints, keep_last=2)

    def checkpoint(step: int) -> None:
        processes = process_states(fabric, loader)
        if fabric.is_global_zero:
            state = {
                "settings": settings.model_dump(mode="json"),
                "step": step,
                "detector": detector.state_dict(),
                "optimizer": optimizer.state_dict(),
                "precision": fabric.strategy.precision.state_dict(),
                "processes": processes,
                "metrics": metrics,
            }
            checkpoints.write(state)
            run.write_bad_images(merge_bad_images(process["loader"] for process in processes))
        fabric.barrier()

    def tell(failure: OSError | None) -> None:
        if failure is not None:
            progress.say(f"warning: {failure.filename} was not written: {failure.strerror}. The run goes on.")

    writer = None
    if settings.logger == "tensorboard" and fabric.is_global_zero and first_step < total_steps:
        writer = SummaryWriter(str(run.tensorboard), purge_step=first_step + 1 if first_step else None)

    # ---- Train ----------------------------------------------------------------------------------------------
    started = last_checkpoint = window_start = time.perf_counter()
    waited = window_waited = 0.0
    window_step = first_step
    progress = TrainingProgress(
        total_steps=total_steps,
        first_step=first_step,
        num_epochs=-(-total_steps // loader.steps_per_epoch),
        shown=fabric.is_global_zero,
    )
    with closing(checkpoints), progress, stop_signals() as stop:
        for sentence in passed_over:
            progress.say(sentence)
        if (warning := slow_precision(settings.precision, fabric.device)) is not None:
            progress.say(warning)
        wrapped.train()
        batches = None
        for step in range(first_step, total_steps):
            epoch, step_in_epoch = divmod(step, loader.steps_per_epoch)
            if batches is None or step_in_epoch == 0:
                batches = loader.epoch(epoch, start_step=step_in_epoch)

            # One step.
            waiting = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - waiting
            batch = batch.to(fabric.device)
            set_rates(optimizer, lr=rate_at(step), weight_decay=settings.weight_decay)
            losses = wrapped([image.float() / 255 for image in batch.images], batch.targets)
            fabric.backward(torch.stack(list(losses.values())).sum())
            run_ends = step + 1 == total_steps
            asked_to_stop, time_is_up = agreed(
                [bool(stop), due_by_time(last_checkpoint, settings.checkpoint_every_minutes)], fabric, step
            )
            saving = run_ends or asked_to_stop or time_is_up or due_by_step(step + 1, settings.checkpoint_every_steps)
            logging = saving or (step + 1) % settings.log_every == 0
            if logging:
                fabric.strategy.precision.unscale_gradients(optimizer)
            grad_norm = gradient_norm(parameters) if logging else None
            optimizer_.step()
            optimizer_.zero_grad()

            # Look at it. The host waits for the device here.
            if logging:
                scalars = {name: value.detach() for name, value in losses.items()}
                metrics = {name: float(value) for name, value in reduce_scalars(fabric, scalars).items()}
                metrics = {"loss": math.fsum(metrics.values()), **metrics}
                broken = None if math.isfinite(metrics["loss"]) else f"the loss became {metrics['loss']}"
                if broken is None and saving and not all_finite(parameters):
                    broken = "the weights became non-finite"
                if broken is not None:
                    raise TrainingStopped(
                        f"{broken} by step {step + 1}: start a new run with a lower lr (it was {settings.lr:g}), "
                        f"a longer warm-up (warmup_steps) or precision=32."
                    )
                if grad_norm is not None:
                    metrics["grad_norm"] = float(grad_norm)
                now = time.perf_counter()
                metrics |= {
                    "lr": rate_at(step),
                    "images_per_second": (step + 1 - window_step) * settings.batch_size / (now - window_start),
                    "data_wait_share": (waited - window_waited) / (now - window_start),
                }
                window_start, window_step, window_waited = now, step + 1, waited
                if fabric.is_global_zero:
                    run.append_metrics({"step": step + 1, "epoch": epoch, **metrics})
                if writer is not None:
                    for name, value in metrics.items():
                        writer.add_scalar(name, value, step + 1)
            progress.update(step=step + 1, epoch=epoch, figures=step_figures(metrics))

            # Keep it.
            if saving:
                pause = time.perf_counter()
                tell(checkpoints.failure(wait=True))
                checkpoint(step + 1)
                if run_ends or asked_to_stop:
                    checkpoints.finish(fabric)
                last_checkpoint = time.perf_counter()
                window_start += last_checkpoint - pause
            if asked_to_stop and not run_ends:
                who = stop[0] if stop else "a signal to another process"
                raise TrainingStopped(
                    f"stopped by {who} after step {step + 1} of {total_steps}; everything is in "
                    f"{run.last_checkpoint}: the same command with resume=true continues."
                )

    if writer is not None:
        writer.close()
    for buffer in detector.buffers() if fabric.world_size > 1 else ():
        dist.broadcast(buffer, src=0)  # without synchronised batch norm each process has its own statistics
    seconds = max(time.perf_counter() - started, 1e-9)
    return TrainingResult(
        steps=total_steps,
        seconds=seconds,
        images_per_second=(total_steps - first_step) * settings.batch_size / seconds,
        data_wait_share=waited / seconds,
        metrics=metrics,
    )


def _resume(
    run: RunFolder, fabric: Fabric, detector: nn.Module, optimizer: Optimizer, loader: DetectionLoader, seed: int
) -> tuple[int, dict[str, float], list[str]]:
    """Put everything back as in the newest intact checkpoint; its step, its figures, what was passed over."""
    checkpoint = load_newest(run.checkpoints)
    state = checkpoint.state
    try:
        detector.load_state_dict(state["detector"])
        optimizer.load_state_dict(state["optimizer"])
        fabric.strategy.precision.load_state_dict(state["precision"])
        step, metrics = state["step"], state["metrics"]
        restore_process(state["processes"], fabric, loader, seed=seed + step)
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{checkpoint.path} does not belong to this run ({str(error).splitlines()[0]}): start a new run."
        ) from None
    if fabric.is_global_zero:
        checkpoint.set_damaged_aside()
    return step, metrics, checkpoint.passed_over
