"""The planner behind ``auto``: rules, memory and time, until the settings of a run fit into both."""

import io
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from shlex import quote
from typing import Any

from sslight.backbones import patch_side
from sslight.config import PretrainSettings
from sslight.data import Glance, Source, check_enough_images
from sslight.pretraining.memory import Memory, fit, predict_memory
from sslight.pretraining.plan import Choice, choose
from sslight.pretraining.sizes import Budget, Machine, Start, view_pixels
from sslight.pretraining.speed import StepSpeed, step_speed
from sslight.train import TrainingStopped, batch_size_per_process

_CALIBRATION_SECONDS = 12.0
_START_SECONDS = 6.0  # libraries, the untrained network, the last checkpoint
_LINEAR_MEASUREMENTS = 2  # linear accuracy before and after: about as long as kNN with 10,000 images of 50 classes
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


Measuring = Callable[[PretrainSettings], float]
"""Seconds that a measurement of kNN accuracy takes with some settings, which is found out by doing part of one."""


@dataclass
class Planner:
    """Chooses, fits into memory, times a few steps, and chooses again by the time that they take."""

    source: Source
    images: Glance
    machine: Machine
    given: dict[str, Any]
    hours: float | None
    begun: float
    measuring: Measuring | None
    start: Start | None
    notes: list[str]

    def __post_init__(self) -> None:
        name = self.given.get("backbone", "mobilenet_v2") if self.start is None else self.start.info.name
        self.patch = patch_side(name, self.given.get("patch_size"))
        self.method: str | None = None  # as long as the hours may change it
        self.memory: dict[tuple[str, int], Memory] = {}  # by all that changes in it from here on

    def plan(self) -> Plan:
        settings, choices, memory = self._fitted(None)
        speed = self._calibrate(settings)
        for _ in range(2 if self.hours else 0):  # the hours may ask for other views, whose speed is another
            before = settings
            settings, choices, memory = self._fitted(self._budget(settings, speed))
            self.method = settings.method  # what another speed would say of it would change the speed again
            if _weight(settings) == _weight(before):
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
        facts = self.images, self.machine, self.given
        decide = partial(choose, *facts, patch=self.patch, budget=budget, start=self.start, method=self.method)
        settings, choices = decide()
        processes = self.machine.processes
        check_enough_images(self.images.num_images, settings.batch_size, processes * settings.accumulate)
        batch_size_per_process(settings, processes)
        memory = self.memory.get(_weight(settings)) or predict_memory(settings, self.machine.device)
        self.memory[_weight(settings)] = memory
        changes = fit(memory, self.machine, settings.batch_size, self.given)
        if changes:
            counted = settings.views.num_local
            settings, choices = decide(fitted=changes)
            if settings.views.num_local > counted:  # smaller steps make more of them, and long runs have more views
                changes["views.num_local"] = Choice("views.num_local", counted, "no memory for more")
                settings, choices = decide(fitted=changes)
        return settings, choices, memory

    def _calibrate(self, settings: PretrainSettings) -> StepSpeed:
        """The time of a step of one process, loader included, from a dozen seconds of them; and of a measurement."""
        self.a_measurement = self.measuring(settings) if self.measuring else 0.0
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
        measurements = epochs / settings.probe.every_epochs + 1 + _LINEAR_MEASUREMENTS
        return _START_SECONDS + images * per_image + epochs * _EPOCH_END_SECONDS + measurements * self.a_measurement

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
            notes.append(f"{steps:,} steps are few: drawn images needed 500 with a ResNet-10-T, photographs need more")
        train = settings.data.train
        paths = quote(train[0] if len(train) == 1 else f"[{', '.join(train)}]")
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


def _weight(settings: PretrainSettings) -> tuple[str, int]:
    """What the hours may change in a step: method, and pixels of an image's views."""
    return settings.method, _pixels(settings)


def _pixels(settings: PretrainSettings) -> int:
    views = settings.views
    return view_pixels(views.global_size, views.local_size, views.num_local)
