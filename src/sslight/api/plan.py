"""``auto``: look at the images, the machine and the time allowed, and find the settings of a run."""

import io
import os
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stderr, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sslight.backbones import (
    batch_norms,
    build_backbone,
    is_public,
    load_backbone_weights,
    open_weights,
    patch_side,
)
from sslight.config import PretrainSettings, ViewSettings, build_settings, load_recipe, read_recipe, to_yaml
from sslight.config.overrides import flatten
from sslight.config.plain_yaml import parse_settings
from sslight.config.schema.fields import expanded
from sslight.data import ReadLimits, Source, SubsetSource, available_cores, check_readable, evenly_spread, glance
from sslight.evaluate.features.extract import EvalTransform, extract_features
from sslight.evaluate.online import extraction
from sslight.pretraining.memory import free_for_each
from sslight.pretraining.online_probe import training_and_labeled
from sslight.pretraining.plan import asked_method
from sslight.pretraining.planner import Plan, Planner
from sslight.pretraining.sizes import Machine, Start
from sslight.train.machine.devices import fast_precision, launcher, place
from sslight.train.record.run_folder import RunFolder
from sslight.train.record.run_weights import weights_in

_TIMED_IMAGES, _TIMED_SECONDS = 512, 3.0
PLANNED = "SSLIGHT_PLANNED_SETTINGS"
"""The settings that ``auto`` has just fitted into the memory, as YAML, for all processes of a run."""


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
    known = {"method": asked_method(given) or "dino", **given}
    if start is not None:
        known = {"backbone": start.info.name, **known}
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
    source, bank, queries = training_and_labeled(settings)
    check_readable(source, limits=ReadLimits(settings.data.max_pixels, settings.data.read_timeout))
    measuring = None if bank is None else partial(_seconds_to_measure, bank, queries)
    images, machine = glance(source, max_pixels=settings.data.max_pixels), _machine(settings.devices)
    return Planner(source, images, machine, given, hours, begun, measuring, start, notes).plan()


def _start(given: Mapping[str, Any]) -> tuple[Start | None, list[str]]:
    """What is known of the weights in ``init_from``, which are tried in the network, and what to look at."""
    if not given.get("init_from"):
        return None, []
    weights = weights_in(str(given["init_from"]))
    info = open_weights(weights, backbone=given.get("backbone")).info
    if info is None:
        raise ValueError(f"init_from={weights} does not say of which network it is: set backbone=NAME.")
    name = given.get("backbone", info.name)
    backbone = build_backbone(name, patch_size=given.get("patch_size", info.patch_size))
    usual = ViewSettings() if info.assumes_normalization else info
    normalization = {part: given.get(f"views.{part}", getattr(usual, part)) for part in ("mean", "std")}
    notes = load_backbone_weights(backbone, weights, name=given.get("backbone"), **normalization)
    return Start(info, bool(batch_norms(backbone))), notes


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
            settings = load_recipe(str(config), given)
            if hours is not None:
                _say_its_length(settings, hours)
            return settings, None
    if os.environ.get("LOCAL_RANK", "0") != "0" and PLANNED in os.environ:  # one of the processes of a planned run
        return build_settings(flatten(parse_settings(os.environ[PLANNED], "plan")), {}), None
    planned = plan(given, hours=hours)
    os.environ[PLANNED] = to_yaml(planned.settings)  # also for the processes that Fabric starts on the other GPUs
    return planned.settings, planned


def _say_its_length(settings: PretrainSettings, hours: float) -> None:
    """What ``hours`` do to a run that is continued: nothing.

    With resume=auto it is a note: the first start needs them, and every restart is the same command.
    """
    what = f"hours={hours:g} has no effect on the run in {settings.output}, whose length was set when it began"
    if settings.resume is True:
        raise ValueError(f"{what}: leave hours out.")
    if os.environ.get("LOCAL_RANK", "0") == "0":
        length = f"epochs={settings.epochs}" if settings.steps is None else f"steps={settings.steps}"
        print(f"{what} ({length})", file=sys.stderr)


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
        memory=free_for_each(placement, torch.device(placement.accelerator)),
        precision=fast_precision(placement.accelerator)[0],  # type: ignore[arg-type]
    )


def _seconds_to_measure(bank: Source, queries: Source | None, settings: PretrainSettings) -> float:
    """Of a measurement of kNN accuracy: nearly all of it is computing the features, which some images tell.

    0 where too many of them are unreadable, which the run refuses in its own words.
    """
    placement = place(settings.devices)
    backbone = build_backbone(settings.backbone, patch_size=settings.patch_size, image_size=settings.views.global_size)
    backbone.to(placement.accelerator)
    transform = EvalTransform(settings.views.global_size, settings.views.mean, settings.views.std)
    how = replace(extraction(settings, placement), device=placement.accelerator)
    total = (len(bank) + (0 if queries is None else len(queries))) / placement.world_size  # images are shared

    def seconds(number: int) -> float:
        begun = time.perf_counter()
        extract_features(backbone, SubsetSource(bank, evenly_spread(len(bank), number)), transform, how)
        return time.perf_counter() - begun

    few = min(_TIMED_IMAGES // 16, len(bank))
    with suppress(ValueError), redirect_stderr(io.StringIO()):
        seconds(few)  # loads libraries
        of_few = seconds(few)
        many = min(_TIMED_IMAGES, len(bank), max(few, int(_TIMED_SECONDS * few / of_few)))
        of_many = seconds(many)
        each = max(0.0, of_many - of_few) / (many - few) if many > few else of_many / many  # workers start once
        return of_many + max(0.0, total - many) * each
    return 0.0
