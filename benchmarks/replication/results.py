"""What the runs of a replication gave: read from their files, compared seed by seed, written as Markdown and drawn."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from matrix import ALL_VARIANTS, BASELINE, LONGER, MORE_VIEWS, SSLIGHT

from sslight.config import load_recipe
from sslight.evaluate import read_result
from sslight.files import write_whole

_T95 = (math.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t, 97.5 % quantile, by degrees of freedom."""


@dataclass(frozen=True)
class CellResult:
    """A finished run: accuracies in percent, and how it went."""

    method: str
    backbone: str
    knn: float
    linear: float
    minutes: float
    """Time in training steps."""
    images_per_second: float
    verdict: str
    steps: int
    losses: list[tuple[int, float]]

    def summary(self) -> str:
        """One line."""
        return (
            f"kNN {self.knn:.1f} %, linear {self.linear:.1f} %, {self.steps} steps at {self.images_per_second:.0f} "
            f"images/s, {self.verdict}"
        )


def read_cell(folder: Path) -> CellResult:
    """The result in the folder of one run."""
    run = load_recipe(str(folder / "run" / "config.yaml"))
    records = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    records = [record for record in records if "images_per_second" in record]
    steps = [0, *(record["step"] for record in records)]
    seconds = sum(
        (after - before) * run.batch_size / record["images_per_second"]
        for before, after, record in zip(steps, steps[1:], records, strict=False)
    )
    return CellResult(
        run.method,
        run.backbone,
        *read_accuracies(folder),
        minutes=seconds / 60,
        images_per_second=median(record["images_per_second"] for record in records),
        verdict=records[-1].get("health", "early"),
        steps=steps[-1],
        losses=[(record["step"], record["loss"]) for record in records],
    )


def read_accuracies(folder: Path) -> tuple[float, float]:
    """Top-1 of kNN and of linear classification in percent, of the two results in a folder."""
    knn, linear = (read_result(folder / name)["accuracy"]["top1"] for name in ("knn", "linear"))
    return knn, linear


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval (Student's t) over seeds; NaN for one value."""
    if len(values) < 2:
        return mean(values), math.nan
    return mean(values), _T95[min(len(values), len(_T95)) - 1] * stdev(values) / math.sqrt(len(values))


Group = dict[str, dict[int, CellResult]]  # variant → seed → result


def write_report(output: Path) -> None:
    """Write RESULTS.md and results.png from the runs that are there, and say where they are."""
    groups = _groups(output / "matrix")
    if not groups:
        raise SystemExit(f"{output / 'matrix'} holds no finished run yet.")
    plan = json.loads((output / "plan.json").read_text(encoding="utf-8"))
    untrained = {backbone: _untrained(output / "untrained" / backbone) for _, backbone in groups}
    _draw(groups, untrained, output / "results.png")
    parts = [_about(plan, groups)]
    for (method, backbone), group in groups.items():
        parts += [f"## {method}, {backbone}", _table(group, untrained[backbone]), *_sentences(group)]
    parts += ["## Selection", _selection(output / "selection.json"), "## Health verdicts", _verdicts(groups)]
    write_whole(output / "RESULTS.md", "\n\n".join(parts) + "\n")
    print(f"{output / 'RESULTS.md'} and {output / 'results.png'}")


def _groups(matrix: Path) -> dict[tuple[str, str], Group]:
    groups: dict[tuple[str, str], Group] = {}
    for folder in sorted(matrix.glob("*")):
        if not (folder / "linear" / "results.json").exists():
            continue
        cell = read_cell(folder)
        variant, seed = _variant_and_seed(folder.name, cell)
        groups.setdefault((cell.method, cell.backbone), {}).setdefault(variant, {})[seed] = cell
    order = {variant: number for number, variant in enumerate(ALL_VARIANTS)}
    return {key: dict(sorted(group.items(), key=lambda item: order[item[0]])) for key, group in groups.items()}


def _variant_and_seed(name: str, cell: CellResult) -> tuple[str, int]:
    variant, _, seed = name.removeprefix(f"{cell.method}-{cell.backbone}-").rpartition("-")
    return next(v for v in ALL_VARIANTS if v.replace(", ", "-").replace(" ", "-") == variant), int(seed)


def _about(plan: dict[str, Any], groups: dict[tuple[str, str], Group]) -> str:
    length, asked = plan["length"], plan["asked"]
    minutes = sum(cell.minutes for group in groups.values() for cells in group.values() for cell in cells.values())
    runs = sum(len(cells) for group in groups.values() for cells in group.values())
    return (
        f"# Replication\n\n{runs} runs: {length['epochs']} epochs of {plan['images']:,} images, "
        f"{length['seeds']} seeds, {plan['jobs']} at a time on {plan['device']}, precision {plan['precision']}, "
        f"torch {plan['torch']}, {plan['date']}; {minutes:.0f} minutes in training steps (budget: "
        f"{asked['minutes']:g} minutes on the clock). Accuracies are top-1 in percent on the validation "
        "images, which nothing was chosen on in this run: kNN with k = 20, and logistic regression, both on the "
        "features of the training images. *Mean ± 95 % interval over seeds* (Student's t). Differences are taken "
        "seed by seed (same first weights, same order of images). Of comparisons that differ in nothing, one in "
        "twenty would still be told apart. Losses of other weights or views do not compare."
    )


def _untrained(folder: Path) -> tuple[float, float] | None:
    """Accuracies by kNN and by linear classification of new weights, once they were measured."""
    return read_accuracies(folder) if (folder / "linear" / "results.json").exists() else None


def _table(group: Group, untrained: tuple[float, float] | None) -> str:
    lines = [
        "| variant | kNN | linear | kNN − baseline | linear − baseline | steps | minutes a run | images/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for variant, cells in group.items():
        accuracies = [_plus_minus(interval([getattr(c, name) for c in cells.values()])) for name in ("knn", "linear")]
        differences = [
            ""
            if variant == BASELINE
            else _plus_minus(found, sign=True)
            if (found := _paired(group, variant, name))
            else ""
            for name in ("knn", "linear")
        ]
        speed = f"{median(c.images_per_second for c in cells.values()):.0f}"
        minutes = f"{mean(c.minutes for c in cells.values()):.1f}"
        steps = f"{next(iter(cells.values())).steps:,}"
        lines.append("| " + " | ".join([variant, *accuracies, *differences, steps, minutes, speed]) + " |")
    if untrained is not None:
        lines.append(f"| untrained, seed 0 | {untrained[0]:.1f} | {untrained[1]:.1f} | | | 0 | | |")
    return "\n".join(lines)


def _paired(group: Group, variant: str, name: str, against: str = BASELINE) -> tuple[float, float] | None:
    """Mean and half-width of ``variant`` − ``against`` over the seeds that both have."""
    one, other = group.get(variant, {}), group.get(against, {})
    seeds = sorted(one.keys() & other.keys())
    return interval([getattr(one[s], name) - getattr(other[s], name) for s in seeds]) if seeds else None


def _plus_minus(value: tuple[float, float], *, sign: bool = False) -> str:
    middle, half = value
    return (f"{middle:+.1f}" if sign else f"{middle:.1f}") + ("" if math.isnan(half) else f" ± {half:.1f}")


def _sentences(group: Group) -> list[str]:
    found = []
    for against in (BASELINE, LONGER, MORE_VIEWS):
        for name, shown in (("knn", "kNN"), ("linear", "linear accuracy")):
            difference = _paired(group, SSLIGHT, name, against)
            if difference is None:
                continue
            middle, half = difference
            if math.isnan(half):
                word = "one seed says nothing about chance"
            elif abs(middle) <= half:
                word = "**not told apart** by these seeds"
            else:
                word = "**SSLight wins**" if middle > 0 else "**SSLight does not win: it is lower**"
            matched = "" if against == BASELINE else " (as many view pixels as SSLight)"
            found.append(f"* SSLight − {against}{matched}, {shown}: {_plus_minus(difference, sign=True)}: {word}.")
    return ["\n".join(found)] if found else []


def _selection(path: Path) -> str:
    if not path.exists():
        return "None."
    lines = [
        "Learning rate (for 256 images) by kNN on a tenth of the training images held out, one seed; the single "
        "settings and the matched baselines take the baseline's.",
        "",
        "| run | kNN by rate | chosen |",
        "|---|---|---|",
    ]
    for run, found in json.loads(path.read_text(encoding="utf-8")).items():
        tried = ", ".join(f"{float(rate):g}: {accuracy:.1f}" for rate, accuracy in found["knn"].items())
        lines.append(f"| {run} | {tried} | {found['lr']:g} |")
    return "\n".join(lines)


def _verdicts(groups: dict[tuple[str, str], Group]) -> str:
    lines = ["| method | backbone | variant | verdicts by seed | last loss by seed |", "|---|---|---|---|---|"]
    for (method, backbone), group in groups.items():
        for variant, cells in group.items():
            verdicts = ", ".join(cell.verdict for _, cell in sorted(cells.items()))
            losses = ", ".join(f"{cell.losses[-1][1]:.2f}" for _, cell in sorted(cells.items()))
            lines.append(f"| {method} | {backbone} | {variant} | {verdicts} | {losses} |")
    return "\n".join(lines)


def _draw(groups: dict[tuple[str, str], Group], untrained: dict[str, tuple[float, float] | None], path: Path) -> None:
    """A row of panels for each method and backbone: kNN, linear accuracy (a dot a seed), and the losses of all runs."""
    import matplotlib as mpl  # asked for by run.py before any work

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, rows = plt.subplots(len(groups), 3, figsize=(13, 3.2 * len(groups)), squeeze=False, layout="constrained")
    for axes, ((method, backbone), group) in zip(rows, groups.items(), strict=True):
        colors = {variant: f"C{ALL_VARIANTS.index(variant)}" for variant in group}
        for number, (name, title) in enumerate((("knn", "kNN, %"), ("linear", "linear (fast), %"))):
            axis = axes[number]
            for place, (variant, cells) in enumerate(group.items()):
                values = [getattr(cell, name) for cell in cells.values()]
                axis.plot(values, [place] * len(values), "o", color=colors[variant], alpha=0.5, markersize=5)
                axis.plot(mean(values), place, "|", color=colors[variant], markersize=16, markeredgewidth=2.5)
            axis.set_yticks(range(len(group)), list(group))
            axis.invert_yaxis()
            if (before := untrained[backbone]) is not None:
                axis.axvline(before[number], color="grey", linestyle="--", linewidth=1)
                axis.annotate(
                    "untrained",
                    (before[number], 1),
                    (3, -10),
                    xycoords=axis.get_xaxis_transform(),
                    textcoords="offset points",
                    fontsize=7,
                    color="grey",
                )
            axis.set_title(f"{method}, {backbone}: {title}", fontsize=10)
            axis.grid(axis="x", alpha=0.3)
        axes[1].set_yticklabels([])
        for variant, cells in group.items():
            for number, (_, cell) in enumerate(sorted(cells.items())):
                x, y = zip(*cell.losses, strict=True)
                label = variant if number == 0 else None
                axes[2].plot(x, y, color=colors[variant], linewidth=0.8, alpha=0.7, label=label)
        axes[2].set_title(f"{method}, {backbone}: loss by step", fontsize=10)
        axes[2].legend(fontsize=7, frameon=False)
        axes[2].grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
