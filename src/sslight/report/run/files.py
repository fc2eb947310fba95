"""What a run folder says: of runs that are finished, still going on, or were killed; whatever is missing is noted."""

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sslight.config import read_plain_settings
from sslight.reading import read_ordinary

_LARGEST = 2**30
_RUN_FILES = ("config.yaml", "metrics.jsonl", "environment.json")

Series = list[tuple[int, float]]
"""Steps, ascending, and the figure at each; NaN where it was not finite."""


@dataclass(frozen=True)
class Run:
    """A run as its files have it.

    Attributes:
        name: Short and unlike that of other runs on the page.
        path: Its folder.
        settings: From ``config.yaml``, dotted names to values; empty if it cannot be read.
        environment: From ``environment.json``.
        series: Figures of ``metrics.jsonl`` by name.
        health: Steps and the state that the run was in; empty if it says nothing of it.
        finding: What is seen in the last state, and ``advice`` what to try; empty if nothing is wrong or known.
        judged_here: The states are not the run's own, but were found from its figures for this page.
        steps_per_epoch: None before the first epoch has ended.
        bad_images: Rows of ``bad_images.csv``.
        nonfinite: Records of ``nonfinite.jsonl``.
        exported: Whether there is a ``backbone.safetensors``.
        last_written: When ``metrics.jsonl`` was.
        notes: Sentences on what is missing or damaged.
        intervals: 95 % intervals of the untrained network's accuracies, where the number of images is known.
        healthy: Figures and the range outside which they are a bad sign.
    """

    name: str
    path: Path
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    series: Mapping[str, Series]
    health: list[tuple[int, str]]
    steps_per_epoch: int | None
    bad_images: list[dict[str, str]]
    nonfinite: list[dict[str, Any]]
    exported: bool
    last_written: datetime | None
    notes: list[str]
    finding: str = ""
    advice: str = ""
    judged_here: bool = False
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    healthy: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """The last step that was recorded."""
        return max((points[-1][0] for points in self.series.values() if points), default=0)

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
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.exported and (self.total_steps is None or self.step >= self.total_steps)


def is_run_folder(path: Path) -> bool:
    """Whether a folder has anything of a run."""
    return any((path / name).is_file() for name in _RUN_FILES)


def read_run(path: Path, *, name: str) -> Run:
    """A run from its folder. Nothing in it is an error: what cannot be read is left out, with a note."""
    notes: list[str] = []
    settings: dict[str, Any] = {}
    try:
        settings = read_plain_settings(path / "config.yaml")
    except ValueError as error:
        notes.append(f"config.yaml cannot be read ({error}).")
    environment = _object(path / "environment.json", notes)
    records = _records(path / "metrics.jsonl", notes, wanted=True)
    series, health = _series(records)
    metrics = path / "metrics.jsonl"
    return Run(
        name=name,
        path=path,
        settings=settings,
        environment=environment,
        series=series,
        health=health,
        steps_per_epoch=_steps_per_epoch(records),
        bad_images=_table(path / "bad_images.csv", notes),
        nonfinite=_records(path / "nonfinite.jsonl", notes, wanted=False),
        exported=(path / "backbone.safetensors").is_file(),
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
    notes.append(f"{path.name} is damaged and left out.")
    return {}


def _records(path: Path, notes: list[str], *, wanted: bool) -> list[dict[str, Any]]:
    lines = _text(path, notes, wanted=wanted).splitlines()
    records: list[dict[str, Any]] = []
    broken = 0
    for number, line in enumerate(lines):
        try:
            record = json.loads(line)
            if not isinstance(record, dict) or type(record.get("step")) is not int or not 0 <= record["step"] < 2**53:
                raise ValueError
            records.append(record)
        except (ValueError, RecursionError):
            broken += number + 1 < len(lines)  # the last one may be half written
    if broken:
        notes.append(f"{path.name}: {broken} of {len(lines)} lines are damaged and left out.")
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
                figures.setdefault(name, {})[step] = _finite(value)
    series = {name: sorted(points.items()) for name, points in figures.items()}
    return series, sorted(states.items())


def _finite(value: float | None) -> float:
    try:
        number = math.nan if value is None else float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _steps_per_epoch(records: list[dict[str, Any]]) -> int | None:
    """The last step of the first epoch, which is always recorded."""
    epochs = [record.get("epoch") for record in records]
    if not any(type(epoch) is int and epoch > 0 for epoch in epochs):
        return None
    first = [record["step"] for record, epoch in zip(records, epochs, strict=True) if epoch == 0]
    return max(first, default=0) or None


def _table(path: Path, notes: list[str]) -> list[dict[str, str]]:
    text = _text(path, notes, wanted=False)
    try:
        rows = list(csv.DictReader(io.StringIO(text)))
    except csv.Error as error:
        notes.append(f"{path.name} is damaged ({error}) and left out.")
        return []
    return [{key: value or "" for key, value in row.items() if isinstance(key, str)} for row in rows]
