"""Plans: small YAML files that say which runs there are, in which order; one run is one training and its measurements.

    about: What the runs are to show, for the page.
    plot: false                       # leave it out of the page's plot (default: true)
    data: tiny-imagenet-50            # a folder below --data with train/ and val/, class folders in both
    defaults: {measure: {knn: {}}}    # of every run below; settings and measurements of a run are added to them
    runs:
      - name: dino-{net}-sslight
        for: {net: [mobilenet_v2, resnet18]}   # a run for each combination of the values, put into the texts below
        recipe: dino_cnn_sslight_64
        settings: {backbone: "{net}"}          # as for sslight pretrain
        seeds: [0, 1, 2]
        against: dino-{net}-baseline           # the run that it is compared with, of any plan, or a list of them

The runs of the first seed come first, in the order of the file, then those of the second.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from sslight.config import EvaluateSettings, FinetuneSettings, build

PLANS = Path(__file__).parent / "plans"
LINEAR_FAST = {"linear.mode": "fast"}


@dataclass(frozen=True)
class Run:
    """One run of a plan.

    Attributes:
        plan: Name of its plan.
        name: What it is, without the seed.
        seed: Of the run.
        recipe: Its recipe.
        settings: What differs from the recipe.
        data: The set of images.
        held_out: Train on nine tenths of the training images and measure on the tenth (for choosing), not on val.
        measure: Settings of `sslight evaluate` by name of the measurement; the protocol is the name's first word.
        against: Names of the runs that it is compared with, image by image.
        code: ``sslight``; ``untrained`` for the weights that the run would start from; ``lightly`` for the other side;
            ``candidate NAME`` for a part of `candidates.py` in its place.
    """

    plan: str
    name: str
    seed: int
    recipe: str
    data: str
    settings: dict[str, Any] = field(default_factory=dict)
    held_out: bool = False
    measure: dict[str, dict[str, Any]] = field(default_factory=lambda: {"knn": {}, "linear": LINEAR_FAST})
    against: list[str] = field(default_factory=list)
    code: str = "sslight"

    @property
    def key(self) -> str:
        """Name of its folder and its result."""
        return f"{self.name}-{self.seed}"

    @property
    def content(self) -> dict[str, Any]:
        """All that determines its result, as plain data."""
        return {key: value for key, value in asdict(self).items() if key not in ("plan", "against", "measure")}


_KEYS = {f.name for f in fields(Run)} - {"plan", "seed"} | {"seeds", "for"}
_OF_FEATURES = {"data.subset", "linear.mode", "resize", "network", "knn.k", "knn.temperature"}


@dataclass(frozen=True)
class Plan:
    """A plan with its runs, in their order."""

    name: str
    about: str
    runs: tuple[Run, ...]
    plot: bool = True


def read_plan(path: Path) -> Plan:
    """A plan from its file.

    Raises:
        ValueError: a key or a setting of a measurement is unknown, or a name comes twice.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        content = {}
    if lacking := {"about", "data", "runs"} - content.keys():
        raise ValueError(
            f"{path} lacks {', '.join(sorted(lacking))}: a plan has about, data, runs and perhaps defaults."
        )
    if unknown := content.keys() - {"about", "plot", "data", "defaults", "runs"}:
        raise ValueError(f"{path} has an unknown key {min(unknown)}: use about, plot, data, defaults and runs.")
    entries = [entry for listed in content["runs"] for entry in _each(content, listed, path)]
    seeds = sorted({seed for entry in entries for seed in entry["seeds"]})
    runs = []
    for seed in seeds:
        for entry in entries:
            if seed in entry["seeds"]:
                given = {key: value for key, value in entry.items() if key not in ("seeds", "against")}
                named = entry.get("against") or []
                against = [named] if isinstance(named, str) else named
                runs.append(Run(plan=path.stem, seed=seed, against=against, **given))
    names = [entry["name"] for entry in entries]
    for entry in entries:
        if names.count(entry["name"]) > 1:
            raise ValueError(f"{path}: {entry['name']} comes twice: give each run a name of its own.")
    for run in runs:
        for measure, settings in run.measure.items():
            try:
                _check_measurement(measure.split()[0], settings, run)
            except ValueError as error:
                raise ValueError(f"{path}: {run.name}, {measure}: {error}") from None
    return Plan(path.stem, content["about"].strip(), tuple(runs), plot=content.get("plot", True))


def _check_measurement(protocol: str, settings: dict[str, Any], run: Run) -> None:
    """Refuse what would be found wrong after hours of training."""
    side = run.settings.get("views.global_size")
    if side is not None and settings.get("resize", side) != side:
        raise ValueError(f"resize={settings['resize']} and then the middle {side} px would be seen: use resize={side}.")
    if run.held_out and protocol in ("semi", "finetune"):
        raise ValueError("labels of held-out images would be trained on: use knn or linear with held_out.")
    match protocol:
        case "knn" | "linear":
            if unknown := settings.keys() - _OF_FEATURES:
                raise ValueError(f"{min(unknown)} is not known here: use {', '.join(sorted(_OF_FEATURES))}.")
            if protocol == "linear" and settings.get("linear.mode") != "fast":
                raise ValueError("the queue measures linear accuracy by linear.mode: fast alone.")
        case "semi":
            build(EvaluateSettings, settings, protocol="semi", model="backbone.safetensors")
        case "finetune":
            build(FinetuneSettings, settings, model="backbone.safetensors")
        case _:
            raise ValueError("use a name that begins with knn, linear, semi or finetune.")


def _each(content: dict[str, Any], listed: dict[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    """The runs of an entry: the plan's defaults, its own values, and the values of ``for`` in its texts."""
    defaults = {"data": content["data"], "seeds": [0], **content.get("defaults", {})}
    entry = defaults | listed
    for key in ("settings", "measure"):
        if key in entry:
            entry[key] = defaults.get(key, {}) | listed.get(key, {})
    if unknown := entry.keys() - _KEYS:
        raise ValueError(
            f"{path}: {listed.get('name')} has an unknown key {min(unknown)}: use {', '.join(sorted(_KEYS))}."
        )
    names = entry.pop("for", {})
    for values in product(*names.values()):
        yield _filled(entry, dict(zip(names, values, strict=True)))


def _filled(value: Any, words: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, words) for item in value]
    if isinstance(value, str):
        for word, text in words.items():
            value = value.replace(f"{{{word}}}", text)
    return value
