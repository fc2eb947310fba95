"""``auto``: look at the images, the machine and the time allowed, and find the settings of a run."""

import io
import os
import time
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sslight.api.bench import StepSpeed, step_speed
from sslight.backbones import (
    BackboneInfo,
    build_backbone,
    is_public,
    load_backbone_weights,
    open_weights,
    patch_side,
)
from sslight.config import PretrainSettings, ViewSettings, build_settings, load_recipe, read_recipe, to_yaml
from sslight.config.fields import expanded
from sslight.config.overrides import flatten
from sslight.config.plain_yaml import parse_settings
from sslight.data import (
    Glance,
    ReadLimits,
    Source,
    available_cores,
    build_source,
    build_training_source,
    check_readable,
    glance,
)
from sslight.pretraining.memory import Memory, fit, predict_memory
from sslight.pretraining.plan import Budget, Choice, Machine, choose, view_pixels
from sslight.train import TrainingStopped
from sslight.train.devices import fast_precision, launcher, place
from sslight.train.memory import free_memory
from sslight.train.run_folder import RunFolder
from sslight.train.run_weights import weights_in

PLANNED = "SSLIGHT_PLANNED_SETTINGS"
"""The settings that ``auto`` has just fitted into the memory, as YAML, for all processes of a run."""

_CALIBRATION_SECONDS = 12.0
_START_SECONDS = 6.0  # libraries, the untrained network, the last checkpoint
_EPOCH_END_SECONDS = 0.3  # a checkpoint, and the loader's first batch
_CALIBRATED_PIXELS = 1_000_000  # of a step's views on a CPU, where larger batches cost in proportion
_LARGE_MEGAPIXELS = 1.5
_ALIKE_SHARE = 0.5
_FEWEST_STEPS = 1000


@dataclass(frozen=True)
class Plan:
    """Settings for a run, a reason for each, and what it will take.

    ``memory`` is the largest of a process in bytes, of which ``machine.memory`` are free; ``seconds`` of the whole run.
    ``notes`` are sentences on what would help.
    """

    settings: PretrainSettings
    choices: list[Choice]
    images: Glance
    machine: Machine
    memory: float
    seconds: float
    images_per_second: float
    notes: list[str]


def plan(overrides: Mapping[str, Any] | None = None, *, hours: float | None = None, **more: Any) -> Plan:
    """Find the settings of a run on ``data.train``. Only a few steps are run, to measure the speed.

    ``plan({"data.train": "images"}, hours=8, backbone="resnet18")``

    Args:
        overrides: Settings to keep as given, dotted or nested.
        hours: Time that the run may take, from now on; with None, the plan says how long it takes.
        more: As ``overrides``, as keywords.

    Raises:
        ValueError: a setting or the data is wrong, the hours are too few for one epoch, or memory for two images.
    """
    begun = time.perf_counter()
    given = {name: value for name, value in flatten({**(overrides or {}), **more}).items() if value is not None}
    if given.get("precision") == "auto":
        del given["precision"]  # which is the plan's to choose
    _check_hours(given, hours)
    start, notes = _start(given)
    known = given if start is None else {"backbone": start.name, **given}
    settings = build_settings(read_recipe("dino_cnn_sslight_64").values | _yet_to_choose(known), known)
    if launcher():
        raise ValueError(
            f"auto would plan in each process that {launcher()} started: plan once before, with "
            "`sslight plan IMAGES ... save=plan.yaml`, and let them run `sslight pretrain plan.yaml`."
        )
    if is_public(settings.backbone):
        raise ValueError(f"backbone={settings.backbone} names weights: with auto give init_from={settings.backbone}.")
    if settings.output is not None:
        RunFolder(settings.output).check(settings)
    source = build_training_source(settings.data, labeled=settings.probe.linear)
    check_readable(source, limits=ReadLimits(settings.data.max_pixels, settings.data.read_timeout))
    images, machine = glance(source, max_pixels=settings.data.max_pixels), _machine(settings.devices)
    return _Planner(source, images, machine, given, hours, begun, _num_measured(settings), start, notes).plan()


def _start(given: Mapping[str, Any]) -> tuple[BackboneInfo | None, list[str]]:
    """What is known of the weights in ``init_from``, which are tried in the network, and what to look at."""
    if not given.get("init_from"):
        return None, []
    weights = weights_in(str(given["init_from"]))
    start = open_weights(weights, backbone=given.get("backbone")).info
    if start is None:
        raise ValueError(f"init_from={weights} does not say of which network it is: set backbone=NAME.")
    patch = given.get("patch_size", start.patch_size)
    backbone, usual = build_backbone(given.get("backbone", start.name), patch_size=patch), ViewSettings()
    mean, std = (given.get(f"views.{part}", getattr(usual, part)) for part in ("mean", "std"))
    unsure = {"mean": mean, "std": std} if start.assumes_normalization else {}
    return start, load_backbone_weights(backbone, weights, name=given.get("backbone"), **unsure)


def _yet_to_choose(given: Mapping[str, Any]) -> dict[str, Any]:
    """Values with which hardly anything that is given is refused before the plan is made."""
    patch = patch_side(given.get("backbone", "mobilenet_v2"), given.get("patch_size"))
    side = 512 // (patch or 1) * (patch or 1)
    length = {} if "steps" in given else {"epochs": 10_000_000}
    sides = {"views.global_size": side, "views.local_size": patch or 8}
    return sides | length | {"optim.min_lr": 0.0, "moco.queue_size": given.get("batch_size", 64)}


def auto_settings(overrides: Mapping[str, Any], hours: float | None) -> tuple[PretrainSettings, Plan | None]:
    """What ``sslight pretrain auto`` runs; a run that is continued has its settings, and no plan."""
    given = flatten(overrides)
    if given.get("output") and given.get("resume"):
        config = Path(expanded(str(given["output"]))) / "config.yaml"
        if config.is_file():
            _check_hours(given, hours)
            return load_recipe(str(config), given), None
    if os.environ.get("LOCAL_RANK", "0") != "0" and PLANNED in os.environ:  # one of the processes of a planned run
        return build_settings(flatten(parse_settings(os.environ[PLANNED], "plan")), {}), None
    planned = plan(given, hours=hours)
    os.environ[PLANNED] = to_yaml(planned.settings)  # also for the processes that Fabric starts on the other GPUs
    return planned.settings, planned


def _check_hours(given: Mapping[str, Any], hours: float | None) -> None:
    if not given.get("data.train"):
        raise ValueError("data.train is not set: give your images, such as data.train=images (or synthetic:2000).")
    length = next((name for name in ("epochs", "steps") if given.get(name) is not None), None)
    if hours is not None and length is not None:
        raise ValueError(
            f"hours={hours:g} and {length}={given[length]} are both given: keep one, which sets the length."
        )


def _machine(devices: str) -> Machine:
    placement = place(devices)
    return Machine(
        device="cuda" if placement.accelerator == "cuda" else "cpu",
        name=torch.cuda.get_device_name() if placement.accelerator == "cuda" else "CPU",
        processes=placement.world_size,
        cores=available_cores(),
        memory=free_memory(torch.device(placement.accelerator)),
        precision=fast_precision(placement.accelerator)[0],  # type: ignore[arg-type]
    )


@dataclass
class _Planner:
    """Chooses, fits into memory, times a few steps, and chooses again by the time that they take."""

    source: Source
    images: Glance
    machine: Machine
    given: dict[str, Any]
    hours: float | None
    begun: float
    measured: int
    start: BackboneInfo | None
    notes: list[str]

    def __post_init__(self) -> None:
        name = self.given.get("backbone", "mobilenet_v2") if self.start is None else self.start.name
        self.patch = patch_side(name, self.given.get("patch_size"))
        self.memory: dict[int, Memory] = {}  # by the pixels of an image's views, all that changes in it from here on

    def plan(self) -> Plan:
        settings, choices, memory = self._fitted(None)
        speed = self._calibrate(settings)
        for _ in range(2 if self.hours else 0):  # the hours may ask for other views, whose speed is another
            before = settings
            settings, choices, memory = self._fitted(self._budget(settings, speed))
            if _pixels(settings) == _pixels(before):
                break
            speed = self._calibrate(settings)
        share, parts = settings.batch_size // self.machine.processes, settings.accumulate
        steps = settings.steps or (settings.epochs or 0) * max(1, self.images.num_images // settings.batch_size)
        return Plan(
            settings=settings,
            choices=choices,
            images=self.images,
            machine=self.machine,
            memory=memory.peak(share, accumulate=parts, mode=settings.grad_checkpointing),
            seconds=self._seconds(settings, speed, steps * settings.batch_size),
            images_per_second=1 / self._per_image(settings, speed),
            notes=self._notes(settings, speed, steps),
        )

    def _fitted(self, budget: Budget | None) -> tuple[PretrainSettings, list[Choice], Memory]:
        """Settings and reasons, with which the run fits into free memory."""
        decide = partial(
            choose, self.images, self.machine, self.given, patch=self.patch, budget=budget, start=self.start
        )
        settings, choices = decide()
        memory = self.memory.get(_pixels(settings)) or predict_memory(settings, self.machine.device)
        self.memory[_pixels(settings)] = memory
        changes = fit(memory, self.machine, settings.batch_size, self.given)
        if changes:
            counted = settings.views.num_local
            settings, choices = decide(fitted=changes)
            if settings.views.num_local > counted:  # smaller steps make more of them, and long runs have more views
                changes["views.num_local"] = Choice("views.num_local", counted, "no memory for more")
                settings, choices = decide(fitted=changes)
        return settings, choices, memory

    def _calibrate(self, settings: PretrainSettings) -> StepSpeed:
        """The time of a step of one process, loader included, from a dozen seconds of them."""
        batch = settings.batch_size // self.machine.processes // settings.accumulate
        if self.machine.device == "cpu":
            while batch % 2 == 0 and batch > 16 and batch * _pixels(settings) > _CALIBRATED_PIXELS:
                batch //= 2
        moco = settings.moco.model_copy(update={"queue_size": settings.moco.queue_size // batch * batch or batch})
        devices = "cpu" if self.machine.device == "cpu" else "1"
        alone = {"batch_size": batch, "accumulate": 1, "devices": devices, "compile": False, "moco": moco}
        settings = settings.model_copy(update=alone)
        try:
            with redirect_stderr(io.StringIO()):
                speed = step_speed(settings, self.source, steps=3)
                seconds = min(_CALIBRATION_SECONDS, 3600 * (self.hours or 1) / 50)
                steps = round(1000 * seconds / speed.ms_per_step)
                return step_speed(settings, self.source, steps=min(steps, 60)) if steps > 6 else speed
        except TrainingStopped as error:  # which tells of a folder that is gone by now
            why = str(error).partition(";")[0].partition(": ")[0]
            raise TrainingStopped(f"timing a few steps for the plan ended ({why}); nothing has been written.") from None

    def _per_image(self, settings: PretrainSettings, speed: StepSpeed) -> float:
        """Seconds of training for an image; what a step costs at any batch is shared by its images."""
        once = speed.parts.get("optimizer", 0.0) + speed.parts.get("teacher update", 0.0)
        share = settings.batch_size // self.machine.processes
        milliseconds = (speed.ms_per_step - once) / speed.batch_size + once / share
        return milliseconds / 1000 / self.machine.processes

    def _seconds(self, settings: PretrainSettings, speed: StepSpeed, images: float) -> float:
        """Of a run that sees so many images, with its measurements and the ends of its epochs."""
        epochs, per_image = images / self.images.num_images, self._per_image(settings, speed)
        forward = per_image * settings.views.global_size**2 / (4 * _pixels(settings))  # one view, no backward pass
        measurements = min(epochs, 30) + 1
        return (
            _START_SECONDS + images * per_image + epochs * _EPOCH_END_SECONDS + measurements * self.measured * forward
        )

    def _budget(self, settings: PretrainSettings, speed: StepSpeed) -> Budget:
        assert self.hours is not None
        left = 3600 * self.hours - (time.perf_counter() - self.begun)
        per_image, once = self._per_image(settings, speed), self._seconds(settings, speed, 0)
        most = max(left, 1.0) / per_image
        slower = (self._seconds(settings, speed, most) - once) / (most * per_image)  # with the ends of epochs
        return Budget(self.hours, max(left - once, 0.0) / slower, per_image / _pixels(settings))

    def _notes(self, settings: PretrainSettings, speed: StepSpeed, steps: int) -> list[str]:
        images, notes = self.images, [*self.notes]
        if steps < _FEWEST_STEPS:
            notes.append(f"{steps:,} steps are too few to learn much: 2,000 drawn images needed 500 with a ResNet-10-T")
        paths = " ".join(settings.data.train)
        if images.megapixels > _LARGE_MEGAPIXELS:
            side = 2 * settings.views.global_size
            notes.append(
                f"images of {images.megapixels:.1f} megapixels are decoded again in every epoch: train on smaller "
                f"copies, `sslight data pack {paths} output=SHARDS short_side={side}` and data.train=SHARDS"
            )
        if images.alike >= _ALIKE_SHARE:
            notes.append(
                f"{images.alike:.0%} of the images look like the next one by name, like video frames: take one "
                "every few seconds (a list file as data.subset)"
            )
        if speed.bottleneck.startswith("the loader"):
            notes.append(speed.bottleneck.removeprefix("the loader: ").rstrip("."))
        return notes


def _pixels(settings: PretrainSettings) -> int:
    views = settings.views
    return view_pixels(views.global_size, views.local_size, views.num_local)


def _num_measured(settings: PretrainSettings) -> int:
    """Labeled images of which a measurement computes features."""
    if not settings.measures_knn:
        return 0
    sets = [settings.data.val, settings.probe.train or settings.data.train]
    numbers = [len(build_source(paths, labeled=False, tar_image=settings.data.tar_image)) for paths in sets if paths]
    return sum(numbers[:-1]) + min(numbers[-1], settings.probe.knn_bank)
