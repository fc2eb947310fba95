"""How fast the loader and the training step are with some settings, and what holds them up."""

import statistics
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch

from sslight.backbones import bf16_is_fast_on_cpu, num_features
from sslight.config import CheckpointSettings, PretrainSettings
from sslight.data import (
    Source,
    ViewLoader,
    available_cores,
    build_view_loader,
    decode,
    default_workers,
    loader_workers,
)
from sslight.methods import build_method
from sslight.optim import check_optimizer
from sslight.pretraining.memory import lightened
from sslight.pretraining.online_probe import MethodWithProbe
from sslight.pretraining.task import build_pretraining_task
from sslight.train.loop import train
from sslight.train.machine.advice import too_few_workers, waiting_advice
from sslight.train.machine.clock import StepClock
from sslight.train.machine.devices import build_fabric, place, with_precision
from sslight.train.machine.memory import peak_memory
from sslight.train.record.run_folder import RunFolder
from sslight.views import build_multi_crop, warm_up

WARMUP_STEPS = 3
"""Steps that are not counted: they start workers and fill caches."""


@dataclass(frozen=True)
class LoaderSpeed:
    """Milliseconds are of one core and one image."""

    images: int
    seconds: float
    images_per_second: float
    workers: int
    cores: int
    images_per_second_per_core: float
    share_of_decoding_limit: float
    ms_reading: float
    ms_decoding: float
    ms_views: float
    bottleneck: str


@dataclass(frozen=True)
class StepSpeed:
    """Medians over steps; ``parts`` are milliseconds and sum to about ``ms_per_step``."""

    steps: int
    batch_size: int
    device: str
    precision: str
    images_per_second: float
    ms_per_step: float
    parts: dict[str, float]
    peak_memory_mib: int
    bottleneck: str


# ---- The loader ---------------------------------------------------------------------------------------------


def _loader(settings: PretrainSettings, source: Source, *, pin_memory: bool = False) -> ViewLoader:
    """Of the only training process."""
    views = build_multi_crop(settings.views)
    return build_view_loader(settings, source, views, rank=0, world_size=1, local_world_size=1, pin_memory=pin_memory)


def loader_speed(settings: PretrainSettings, source: Source, *, seconds: float) -> LoaderSpeed:
    """Load batches for so long, with nothing else to do, after timing the parts of one image alone.

    The decoding limit is what the same cores would do if they only read and decoded.
    """
    reading, decoding, views = _parts_of_an_image(settings, source, seconds=seconds / 3)
    loader = _loader(settings, source)
    images = 0
    with closing(loader):
        begun: float | None = None
        epoch = 0
        while begun is None or time.perf_counter() - begun < seconds:
            for number, batch in enumerate(loader.epoch(epoch)):
                if begun is None and number + 1 >= min(WARMUP_STEPS, loader.steps_per_epoch * loader.accumulate):
                    begun = time.perf_counter()
                elif begun is not None:
                    images += batch.num_images
                    if time.perf_counter() - begun >= seconds:
                        break
            epoch += 1
        elapsed = time.perf_counter() - begun
    workers = loader_workers(settings, 1)
    busy_cores = min(max(workers, 1), available_cores())
    per_core = images / elapsed / busy_cores
    return LoaderSpeed(
        images=images,
        seconds=elapsed,
        images_per_second=images / elapsed,
        workers=workers,
        cores=available_cores(),
        images_per_second_per_core=per_core,
        share_of_decoding_limit=per_core * (reading + decoding) / 1000,
        ms_reading=reading,
        ms_decoding=decoding,
        ms_views=views,
        bottleneck=loader_bottleneck(reading, decoding, views, workers=workers, default=default_workers(1)),
    )


def _parts_of_an_image(settings: PretrainSettings, source: Source, *, seconds: float) -> tuple[float, float, float]:
    """Mean milliseconds an image of reading, of decoding and of cutting and changing its views."""
    multi_crop = build_multi_crop(settings.views)
    shrink = multi_crop.most_shrinking if settings.data.scaled_decoding else None
    warm_up()
    totals, count = [0.0, 0.0, 0.0], 0
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(settings.seed)).tolist()
    end = time.perf_counter() + seconds
    for index in order:
        marks = [time.perf_counter()]
        encoded = source.read(index)
        marks.append(time.perf_counter())
        image = decode(encoded, shrink=shrink)
        marks.append(time.perf_counter())
        multi_crop(image, (settings.seed, 0, index))
        marks.append(time.perf_counter())
        totals = [total + later - mark for total, (mark, later) in zip(totals, pairwise(marks), strict=True)]
        count += 1
        if marks[-1] > end:
            break
    reading, decoding, views = (1000 * total / count for total in totals)
    return reading, decoding, views


def loader_bottleneck(reading: float, decoding: float, views: float, *, workers: int, default: int) -> str:
    """What to change first, in a sentence; milliseconds an image of the three parts."""
    if workers < default:
        return f"the number of workers: {too_few_workers(workers, default)}"
    whole = reading + decoding + views
    shares = f"reading {reading / whole:.0%}, decoding {decoding / whole:.0%}, views {views / whole:.0%} of an image"
    if reading == max(reading, decoding, views):
        return f"reading ({shares}): pack the images or use a faster disk (sslight data pack)."
    if decoding > views:
        return f"decoding ({shares}): store the images at a smaller size (sslight data pack)."
    return f"the views ({shares}): use fewer or smaller ones (views.num_local, views.local_size)."


# ---- The step -----------------------------------------------------------------------------------------------


def step_speed(settings: PretrainSettings, source: Source, *, steps: int) -> StepSpeed:
    """Train for a few steps in a temporary folder, on one device, and time the parts of each."""
    settings = settings.model_copy(
        update={
            "steps": WARMUP_STEPS + steps,
            "profile": None,
            "epochs": None,
            "freeze_backbone_epochs": 0,
            "optim": settings.optim.model_copy(update={"warmup_epochs": 0}),
            "checkpoint": CheckpointSettings(every_minutes=None, every_epochs=None),
            "log_every": WARMUP_STEPS + steps,
            "logger": ["none"],
            "resume": False,
        }
    )
    placement = replace(place(settings.devices), processes_per_node=1, num_nodes=1)
    settings = with_precision(settings, placement)[0]
    fabric = build_fabric(settings, placement)
    fabric.launch()
    on_gpu = fabric.device.type == "cuda"
    torch.manual_seed(settings.seed)
    method = build_method(settings, placement.accelerator)
    check_optimizer(settings.optim, method)
    settings = lightened(settings, placement, fabric, method)
    classes = len(source.classes) if settings.probe.linear and source.classes is not None else None
    model = MethodWithProbe(method, num_features=num_features(method.backbone), num_classes=classes)
    clock = StepClock(runs=True)
    for network in method.children():
        learns = any(p.requires_grad for p in network.parameters())
        clock.watch(network, "student forward" if learns else "teacher forward")
    loader = _loader(settings, source, pin_memory=on_gpu)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with closing(loader), tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        run.create(settings)
        task, options = build_pretraining_task(settings, model, loader, fabric, clock=clock)
        train(task, fabric=fabric, loader=loader, run=run, options=options, clock=clock)
    counted = clock.steps[-steps:]
    names = sorted({name for step in counted for name in step} - {"whole"}, key=list(_PARTS).index)
    parts = {name: 1000 * statistics.median(step.get(name, 0.0) for step in counted) for name in names}
    whole = 1000 * statistics.median(step["whole"] for step in counted)
    parts["rest"] = max(0.0, whole - sum(parts.values()))
    workers = loader_workers(settings, 1)
    return StepSpeed(
        steps=len(counted),
        batch_size=settings.batch_size,
        device=f"{torch.cuda.get_device_name()}, one GPU of {torch.cuda.device_count()}"
        if on_gpu
        else f"cpu, {torch.get_num_threads()} threads",
        precision=settings.precision,
        images_per_second=1000 * settings.batch_size / whole,
        ms_per_step=whole,
        parts=parts,
        peak_memory_mib=peak_memory(fabric.device)["device" if on_gpu else "host"],
        bottleneck=step_bottleneck(parts, workers=workers, on_gpu=on_gpu, precision=settings.precision),
    )


_PARTS = {
    "data wait": "waiting for data",
    "normalization": "normalization",
    "teacher forward": "the teacher's forward pass",
    "student forward": "the student's forward pass",
    "loss": "the loss",
    "backward": "the backward pass",
    "optimizer": "the optimizer",
    "teacher update": "the teacher's update",
}
"""The parts of a step in their order, and what they are called in a sentence."""


def step_bottleneck(parts: dict[str, float], *, workers: int, on_gpu: bool, precision: str) -> str:
    """What to change first, in a sentence; milliseconds by part."""
    whole = sum(parts.values())
    waiting = waiting_advice(
        parts["data wait"] / whole, workers=workers, default=default_workers(1), cores=available_cores(), on_gpu=on_gpu
    )
    if waiting is not None:
        return f"the loader: {waiting}"
    largest = max((name for name in parts if name != "data wait"), key=lambda name: parts[name])
    said = f"{_PARTS.get(largest, largest)} ({parts[largest] / whole:.0%} of the step)"
    if largest in ("optimizer", "teacher update"):
        return f"{said}: its cost does not depend on the batch: use a larger batch_size."
    gains = precision == "32" and (on_gpu or bf16_is_fast_on_cpu())
    faster = "precision=bf16, " if gains else ""
    return f"{said}: {faster}use fewer or smaller views (views.num_local, views.local_size) or a smaller backbone."
