"""What a run folder says: of runs that are finished, still going on, or were killed; whatever is missing is noted."""

import csv
import io
import json
import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sslight.config import BEGINNINGS, PretrainSettings, read_plain_settings, read_settings
from sslight.reading import read_ordinary

_LARGEST = 2**30

Series = list[tuple[int, float]]
"""Steps, ascending, and the figure at each; NaN where it was not finite."""


@dataclass(frozen=True)
class Run:
    """A run as its files have it."""

    name: str  # short and unlike that of other runs on the page
    path: Path
    settings: Mapping[str, Any]  # of config.yaml, by dotted names; empty if it cannot be read
    pretraining: PretrainSettings | None  # the same, where they are of pre-training and of this version
    environment: Mapping[str, Any]
    series: Mapping[str, Series]  # figures of metrics.jsonl by name
    health: list[tuple[int, str]]  # steps and the state of the run; empty if it says nothing of it
    steps_per_epoch: int | None  # None before the first epoch has ended
    bad_images: list[dict[str, str]]
    nonfinite: list[dict[str, Any]]
    exported: bool  # whether there is what it makes: a backbone, or results of detection
    last_written: datetime | None  # when metrics.jsonl was
    notes: list[str]  # sentences on what is missing or damaged
    finding: str = ""  # what is seen in the last state; empty if nothing is wrong or known
    advice: str = ""
    judged_here: bool = False  # the states are not the run's own, but were found from its figures for this page
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # 95 %, of untrained accuracies
    healthy: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # beyond these a figure is a bad sign

    @property
    def step(self) -> int:
        """The last step that was recorded."""
        return max((points[-1][0] for points in self.series.values() if points), default=0)

    @property
    def beginning(self) -> str:
        """What the network was before the first step, in words."""
        if self.pretraining is not None:
            return self.pretraining.beginning
        return BEGINNINGS.get(str(self.settings.get("head_init")), "untrained")

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole run; None if that is not known yet."""
        steps, epochs = self.settings.get("steps"), self.settings.get("epochs")
        if isinstance(steps, int):
            return steps
        if isinstance(epochs, int | float) and self.steps_per_epoch is not None:
            return round(epochs * self.steps_per_epoch)
        return None

    @property
    def measured_images(self) -> int | None:
        """Images of which the kNN accuracy is; None if the run did not record it."""
        recorded = [value for _, value in self.series.get("knn_images", []) if value >= 1]
        return int(recorded[-1]) if recorded else None

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.exported and (self.total_steps is None or self.step >= self.total_steps)


def is_run_folder(path: Path) -> bool:
    """Whether a folder has anything of a run."""
    return any((path / name).is_file() for name in ("config.yaml", "metrics.jsonl", "environment.json"))


def read_run(path: Path, *, name: str) -> Run:
    """A run from its folder. Nothing in it is an error: what cannot be read is left out, with a note."""
    notes: list[str] = []
    settings: dict[str, Any] = {}
    pretraining = None
    try:
        settings = read_plain_settings(path / "config.yaml")
    except ValueError as error:
        notes.append(f"config.yaml cannot be read ({error}).")
    with suppress(ValueError):
        pretraining = read_settings(path / "config.yaml", PretrainSettings)
    environment = _object(path / "environment.json", notes)
    metrics = path / "metrics.jsonl"
    records = _records(metrics, notes, wanted=True)
    series, health = _series(records)
    return Run(
        name=name,
        path=path,
        settings=settings,
        pretraining=pretraining,
        environment=environment,
        series=series,
        health=health,
        steps_per_epoch=_steps_per_epoch(records),
        bad_images=_table(path / "bad_images.csv", notes),
        nonfinite=_records(path / "nonfinite.jsonl", notes, wanted=False),
        exported=any((path / name).is_file() for name in ("backbone.safetensors", "results.json")),
        last_written=datetime.fromtimestamp(metrics.stat().st_mtime, UTC) if metrics.is_file() else None,
        notes=notes,
    )


def _text(path: Path, notes: list[str], *, wanted: bool) -> str:
    if not path.exists():
        if wanted:
            notes.append(f"There is no {path.name}.")
        return ""
    try:
        return read_ordinary(path, largest=_LARGEST).decode("utf-8", errors="replace")
    except (OSError, ValueError) as error:
        notes.append(f"{path.name} cannot be read ({getattr(error, 'strerror', None) or error}).")
        return ""


def _object(path: Path, notes: list[str]) -> dict[str, Any]:
    text = _text(path, notes, wanted=True)
    try:
        content = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        return content
    notes.append(f"{path.name} is damaged and was left out.")
    return {}


def _records(path: Path, notes: list[str], *, wanted: bool) -> list[dict[str, Any]]:
    lines = _text(path, notes, wanted=wanted).splitlines()
    records, broken = [], 0
    for number, line in enumerate(lines):
        try:
            record = json.loads(line)
            if not isinstance(record, dict) or type(record.get("step")) is not int or not 0 <= record["step"] < 2**53:
                raise ValueError
            records.append(record)
        except (ValueError, RecursionError):
            broken += number + 1 < len(lines)  # the last one may be half written
    if broken:
        notes.append(f"{path.name}: {broken} of {len(lines)} lines are damaged and were left out.")
    return records


def _series(records: list[dict[str, Any]]) -> tuple[dict[str, Series], list[tuple[int, str]]]:
    """Figures and states by step; where a step was recorded twice, the later record counts."""
    figures: dict[str, dict[int, float]] = {}
    states: dict[int, str] = {}
    for record in records:
        step = record["step"]
        for name, value in record.items():
            if name == "health" and isinstance(value, str):
                states[step] = value
            elif name not in ("step", "epoch") and (value is None or type(value) in (int, float)):
                # None is written for what was not finite; an int may be beyond all floats
                finite = value is not None and abs(value) <= sys.float_info.max
                figures.setdefault(name, {})[step] = float(value) if finite else math.nan
    return {name: sorted(points.items()) for name, points in figures.items()}, sorted(states.items())


def _steps_per_epoch(records: list[dict[str, Any]]) -> int | None:
    """The last step of the first epoch, which is always recorded."""
    if not any(type(record.get("epoch")) is int and record["epoch"] > 0 for record in records):
        return None
    return max((record["step"] for record in records if record.get("epoch") == 0), default=0) or None


def _table(path: Path, notes: list[str]) -> list[dict[str, str]]:
    try:
        rows = list(csv.DictReader(io.StringIO(_text(path, notes, wanted=False))))
    except csv.Error as error:
        notes.append(f"{path.name} is damaged ({error}) and was left out.")
        return []
    return [{key: value or "" for key, value in row.items() if isinstance(key, str)} for row in rows]
