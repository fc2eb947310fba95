"""Results in words and figures: accuracies, differences of runs, and texts that are filled with them."""

import re
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from sslight.config import load_recipe
from sslight.intervals import paired_difference, paired_runs

Result = dict[str, Any]


def filled(text: str, kept: dict[str, Result]) -> str:
    """The text with the results of ``{RUN | MEASURE}`` (a run with its seed) and ``{NAME − OTHER | MEASURE}``."""

    def shown(words: re.Match[str]) -> str:
        name, measure = words[1].strip(), words[2].strip()
        if " − " not in name:
            result = kept.get(name, {"measured": {}})
            facts = {"steps": _steps, "seconds": _seconds, "health": _health}
            if measure in facts:
                return facts[measure](result)
            return accuracy(result["measured"].get(measure)) or "not measured"
        one, other = name.split(" − ")
        found = dict(compared(one, other, kept)).get(measure)
        return "not measured" if found is None else found[1]

    return re.sub(r"\{([^{}|]+)\|([^{}|]+)\}", shown, text)


def _steps(result: Result) -> str:
    return f"{result['steps']:,}" if result.get("steps") else ""


def _seconds(result: Result) -> str:
    if not result.get("curve"):
        return ""
    seconds = step_seconds(result)
    why_not = "float32" if result["precision"] == "32" else "shared"
    return f"{seconds * result['steps']:.0f}" if seconds else why_not


def step_seconds(result: Result) -> float | None:
    """Of a step, by the median of the images a second.

    None without steps, where other work had half of the core, and in float32: that is what a processor without
    instructions for bfloat16 had, whose seconds tell nothing beside those of the others.
    """
    speeds = [record["images_per_second"] for record in result.get("curve", ()) if "images_per_second" in record]
    if not speeds or result["precision"] == "32" or result["hours"] > 1.5 * result["processor_hours"]:
        return None
    batch: int = result["settings"].get("batch_size") or load_recipe(result["recipe"]).batch_size
    return batch / float(median(speeds))


def _health(result: Result) -> str:
    return ends(sorted(result.get("curve", ()), key=lambda record: record["step"]), "health")


def compared(name: str, other: str, kept: dict[str, Result]) -> Iterator[tuple[str, tuple[list[int], str]]]:
    """For each measure that both sides have, taken alike, in at least one seed: these seeds, and the difference."""
    seeds = sorted(result["seed"] for result in kept.values() if result["name"] == name)
    pairs = [(seed, kept[f"{name}-{seed}"], kept[key]) for seed in seeds if (key := f"{other}-{seed}") in kept]
    for measure in dict.fromkeys(measure for _, one, _ in pairs for measure in one["measured"]):
        both = [
            (seed, one["measured"][measure], its["measured"][measure])
            for seed, one, its in pairs
            if measure in one["measured"] and measure in its["measured"] and _taken_alike(measure, one, its)
        ]
        if both:
            yield measure, ([seed for seed, *_ in both], _difference([(one, its) for _, one, its in both]))


def _taken_alike(measure: str, one: Result, other: Result) -> bool:
    """With the same settings; whole images at the size of the views count as the same."""
    sides = [dict(side.get("measure", {}).get(measure, {})) for side in (one, other)]
    for settings in sides:
        settings.pop("resize", None)  # which plans set to the size of the views
    return sides[0] == sides[1]


def _difference(sides: Sequence[tuple[Result, Result]]) -> str:
    right = [[[str(rank) == "0" for rank in side["ranks"]] for side in both] for both in sides]
    if len(sides) == 1:
        found = paired_difference(*right[0])
        shown = f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"
    else:
        found = paired_runs([[a - b for a, b in zip(*both, strict=True)] for both in right])
        shown = f"{found.value:+.1f} ± {found.high - found.value:.1f}"
    return f"**{shown}**" if len(sides) != 2 and found.low * found.high > 0 else shown


def accuracy(found: Result | None) -> str:
    return "" if found is None else "{:.1f} [{:.1f}, {:.1f}]".format(found["top1"], *found["interval"])


def ends(curve: Sequence[Result], name: str) -> str:
    """The value at a tenth of a run and at its end."""
    known = [record for record in curve if name in record]
    if not known:
        return ""
    tenth = next(record for record in known if record["step"] >= known[-1]["step"] / 10)
    return ", ".join(f"{v:.2f}" if isinstance(v, float) else str(v) for v in (tenth[name], known[-1][name]))
