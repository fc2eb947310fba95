"""A run in a few figures, as plain data: for the cards of the page, the terminal and ``--json`` alike."""

import math
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sslight.report.run.files import Run

ACCURACIES = {
    "knn_top1": "kNN top-1",
    "linear_top1": "linear top-1",
    "probe_top1": "online probe top-1",
    "holdout_top1": "held-out top-1",
    "holdout_map": "held-out mAP",
}
_QUIET = 900.0

METHOD_NAMES = {"dino": "DINO", "swav": "SwAV", "moco": "MoCo"}
STATES = {
    "early": "too early to tell",
    "healthy": "no indicator shows a problem",
    "watch": "an indicator is outside its healthy range",
    "collapsed": "the network hardly tells images apart",
    "starved": "much of the time is spent waiting for data",
}


def run_summary(run: Run) -> dict[str, Any]:
    """What was run, how far it came, what was measured and what it cost."""
    return {
        "name": run.name,
        "path": str(run.path),
        "method": run.settings.get("method"),
        "backbone": run.settings.get("backbone"),
        "step": run.step,
        "total_steps": run.total_steps,
        "epochs": run.settings.get("epochs"),
        "finished": run.finished,
        "state": run_state(run),
        "last_written": None if run.last_written is None else run.last_written.isoformat(timespec="seconds"),
        "accuracies": {name: found for name in ACCURACIES if (found := _accuracy(run, name))},
        "health": _health(run),
        "cost": _cost(run),
        "unreadable_images": len(run.bad_images),
        "nonfinite_steps": len(run.nonfinite),
        "notes": run.notes,
    }


def run_state(run: Run) -> str:
    """``ended``, ``running`` (it wrote within a quarter of an hour, or three of its records) or ``stopped``."""
    if run.finished:
        return "ended"
    speeds = run.series.get("images_per_second", [])[-2:]
    batch_size, seconds = run.settings.get("batch_size"), 0.0
    if len(speeds) == 2 and isinstance(batch_size, int) and speeds[1][1] > 0:
        seconds = (speeds[1][0] - speeds[0][0]) * batch_size / speeds[1][1]
    written = run.last_written or datetime.fromtimestamp(0, UTC)
    quiet = (datetime.now(UTC) - written).total_seconds()
    return "running" if quiet < max(_QUIET, 3 * seconds) else "stopped"


def steps_reached(summary: Mapping[str, Any]) -> str:
    """``1,500 of 2,000``, or without the total where it is not known."""
    total = summary["total_steps"]
    return f"{summary['step']:,}" + ("" if total is None else f" of {total:,}")


def _accuracy(run: Run, name: str) -> dict[str, Any] | None:
    points = [(step, value) for step, value in run.series.get(name, []) if not math.isnan(value)]
    if not points:
        return None
    trained = [point for point in points if point[0] > 0] or points
    best_step, best = max(trained, key=lambda point: point[1])
    return {
        "beginning": run.beginning,
        "untrained": next((value for step, value in points if step == 0), None),
        "best": best,
        "best_step": best_step,
        "last": points[-1][1],
        "last_step": points[-1][0],
        "untrained_interval": run.intervals.get(name),
    }


def _health(run: Run) -> dict[str, Any] | None:
    """The last state, what is seen in it, and the share of the steps in each; None if the run says nothing of it."""
    if not run.health:
        return None
    steps: Counter[str] = Counter()
    before = 0
    for step, state in run.health:
        steps[state] += step - before
        before = step
    return {
        "state": state,
        "finding": run.finding or STATES.get(state, "a state unknown to this version"),
        "advice": run.advice,
        "judged_here": run.judged_here,
        "shares": {state: count / max(before, 1) for state, count in steps.items()},
    }


def _cost(run: Run) -> dict[str, Any] | None:
    """Time in training steps, from the throughput of each stretch of steps; None without any."""
    batch_size, waits = run.settings.get("batch_size"), dict(run.series.get("data_wait_share", []))
    if not isinstance(batch_size, int):
        return None
    images, seconds, waited, before = 0, 0.0, 0.0, 0
    for step, speed in run.series.get("images_per_second", []):
        if speed > 0:
            stretch = (step - before) * batch_size
            images, seconds = images + stretch, seconds + stretch / speed
            wait = waits.get(step, math.nan)
            waited += 0.0 if math.isnan(wait) else wait * stretch / speed
        before = step
    if not images:
        return None
    gpus = used_gpus(run)
    return {
        "images": images,
        "seconds": seconds,
        "images_per_second": images / seconds,
        "data_wait_share": waited / seconds,
        "gpus": gpus,
        "gpu_hours": len(gpus) * seconds / 3600 if gpus else None,
    }


def used_gpus(run: Run) -> list[str]:
    """The GPUs of the first process's machine that the run used, as far as its files tell."""
    present = run.environment.get("gpus")
    devices = str(run.settings.get("devices", "auto"))
    if devices == "cpu" or not isinstance(present, list):
        return []
    return [str(name) for name in (present[: int(devices)] if devices.isdigit() else present)]


def duration(seconds: float) -> str:
    """``41 s``, ``12 min``, ``3 h 20 min`` or ``2 days 4 h``."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} days {hours % 24} h"
