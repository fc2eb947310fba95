"""The page about all runs, finished and under way: tables, paired differences in words, commands, and a plot."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from plan import Plan, Run

from sslight.files import write_whole
from sslight.intervals import Difference, mean_interval, paired_difference

_HEAD = """\
# Evidence

Written by `make evidence` from the plans and results in `benchmarks/replication` as they are now: {finished} of {runs}
runs are finished, {open} under way.

Accuracies are top-1 in percent on images that nothing was chosen on (val; of the plans "selection", "beyond" and
"beyond-quarter": a tenth of train), used once a run, after its end: weighted kNN with k = 20 and logistic regression
(`linear.mode=fast`), both on the features of all training images, or fine-tuning with labels (`semi`). In brackets: 95
% interval over images. The curves and those of the plots are another measure, on training images alone: kNN of 5,000 of
them among each other, each left out of its own vote, before the first step and after epochs. Differences are paired
image by image, run by run of the same seed (same first weights, same order of images); with one seed their interval
covers other images, not another seed, with several it is Student's t over seeds. Of comparisons that differ in nothing,
one in twenty would still be told apart. Hours are those of a processor that other work shares, first on the clock, then
on the processor."""

Result = dict[str, Any]


def write_page(plans: Sequence[Plan], page: Path, *, results: Path, runs: Path) -> None:
    """Write the page and, beside it, the plot (where matplotlib is installed)."""
    kept = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))}
    unfinished = [run.key for plan in plans for run in plan.runs if run.key not in kept]
    under_way = {key: records for key in unfinished if (records := begun(runs / key)) is not None}
    number = sum(len(plan.runs) for plan in plans)
    finished = sum(run.key in kept for plan in plans for run in plan.runs)
    parts = [_HEAD.format(finished=finished, runs=number, open=len(under_way)), "## What they say so far"]
    parts.append("\n".join(line for plan in plans for line in sentences(plan, kept)) or "No comparison is finished.")
    if under_way:
        parts += ["## Under way", _open_table(plans, under_way)]
    drawn = _draw(plans, kept, under_way, page.with_suffix(".png"))
    parts += [f"![kNN and the teacher's entropy by epoch]({page.stem}.png)"] * drawn
    waiting = []
    for plan in plans:
        done = [run for run in plan.runs if run.key in kept]
        if not done:
            waiting.append(f"- **{plan.name}**, {len(plan.runs)} runs. {plan.about}")
            continue
        found = [kept[run.key] for run in done]
        parts += [f"## Plan: {plan.name}", plan.about, f"{len(done)} of its {len(plan.runs)} runs are finished."]
        parts += [_table(found), _commands(found)]
    parts += ["## Plans of which no run is finished", "\n".join(waiting)] * bool(waiting)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_whole(page, "\n\n".join(parts) + "\n")


def begun(folder: Path) -> list[Result] | None:
    """The metrics so far of a run that has begun."""
    if not (folder / "run").exists():
        return None
    path = folder / "run" / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []  # the last may be half written
    return [json.loads(line) for line in lines]


def sentences(plan: Plan, kept: dict[str, Result]) -> Iterator[str]:
    """A line for each comparison of the plan of which at least one seed is finished on both sides."""
    for name, other in dict.fromkeys((run.name, other) for run in plan.runs for other in run.against):
        pairs = [
            (run.seed, kept[run.key], kept[key])
            for run in plan.runs
            if run.name == name and run.key in kept and (key := f"{other}-{run.seed}") in kept
        ]
        for measure in pairs[0][1]["measured"] if pairs else ():
            if all(measure in side["measured"] for _, *sides in pairs for side in sides):
                yield f"- {name} − {other}, {measure}: {_difference(measure, pairs)}"


def _difference(measure: str, pairs: Sequence[tuple[int, Result, Result]]) -> str:
    sides = [(one["measured"][measure], other["measured"][measure]) for _, one, other in pairs]
    seeds = f"seed{'s' * (len(pairs) > 1)} {', '.join(str(seed) for seed, *_ in pairs)}"
    if len(pairs) > 1:
        middle, half = mean_interval([one["top1"] - other["top1"] for one, other in sides])
        found, shown = Difference(middle, middle - half, middle + half), f"{middle:+.1f} ± {half:.1f}"
    elif all("ranks" in side for side in sides[0]):
        found = paired_difference(*([rank == 0 for rank in side["ranks"]] for side in sides[0]))
        shown = f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"
        seeds += " alone: other images, not another seed"
    else:
        return f"{sides[0][0]['top1'] - sides[0][1]['top1']:+.1f} ({seeds} alone: nothing is known of chance)"
    return f"{shown} ({seeds}): **{found.verdict}**"


def _table(results: Sequence[Result]) -> str:
    measures = list(dict.fromkeys(name for result in results for name in result["measured"]))
    heads = [
        "run",
        "seed",
        *measures,
        "steps",
        "hours",
        "health at a tenth, at the end",
        "teacher's entropy",
        "kNN curve",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    names = list(dict.fromkeys(result["name"] for result in results))
    for result in sorted(results, key=lambda result: (names.index(result["name"]), result["seed"])):
        cells = [result["name"], str(result["seed"])]
        cells += [_accuracy(result["measured"].get(name)) for name in measures]
        cells += [f"{result['steps']:,}", f"{result['hours']:.1f}, {result['processor_hours']:.1f}"]
        cells += [
            _ends(result["curve"], "health"),
            _ends(result["curve"], "teacher_entropy"),
            _curve(result["accuracies"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    machines = dict.fromkeys(
        f"{r['processor']}, precision {r['precision']}, torch {r['versions']['torch']}" for r in results
    )
    return "\n".join([*lines, "", f"On {'; '.join(machines)}."])


def _accuracy(found: Result | None) -> str:
    return "" if found is None else "{:.1f} [{:.1f}, {:.1f}]".format(found["top1"], *found["interval"])


def _ends(curve: Sequence[Result], name: str) -> str:
    """The value at a tenth of a run and at its end."""
    known = [record for record in curve if name in record]
    if not known:
        return ""
    tenth = next(record for record in known if record["step"] >= known[-1]["step"] / 10)
    return ", ".join(f"{v:.2f}" if isinstance(v, float) else str(v) for v in (tenth[name], known[-1][name]))


def _curve(records: Sequence[Result], most: int = 11) -> str:
    values = [record["knn_top1"] for record in records if "knn_top1" in record]
    kept = [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)] if len(values) > most else values
    return " → ".join(f"{value:.1f}" for value in kept)


def _open_table(plans: Sequence[Plan], under_way: dict[str, list[Result]]) -> str:
    lines = ["| plan | run | seed | steps so far | kNN curve so far | health |", "|---|---|---|---|---|---|"]
    for run in (run for plan in plans for run in plan.runs if run.key in under_way):
        records = under_way[run.key]
        step = max((record["step"] for record in records), default=0)
        health = next((record["health"] for record in reversed(records) if "health" in record), "")
        lines.append(f"| {run.plan} | {run.name} | {run.seed} | {step:,} | {_curve(records)} | {health} |")
    return "\n".join(lines)


def _commands(results: Sequence[Result]) -> str:
    """A line for each run; the queue adds what is measured meanwhile, which changes nothing of the training."""
    lines = []
    for result in {result["name"]: result for result in results}.values():
        settings = _words({**result["settings"], "precision": result["precision"]})
        if result["code"] == "sslight":
            lines.append(f"sslight pretrain {result['recipe']} data.train={result['data']}/train seed=SEED {settings}")
        else:
            lines.append(f"# {result['name']}: {result['code']}, with {result['recipe']} {settings}")
    return "\n".join(["```", *lines, "```"])


def _words(settings: dict[str, Any]) -> str:
    return " ".join(
        f"{key}={json.dumps(value).strip(chr(34)).replace(' ', '').replace('{data}/', '')}"
        for key, value in settings.items()
    )


def _draw(plans: Sequence[Plan], kept: dict[str, Result], under_way: dict[str, list[Result]], path: Path) -> bool:
    """A row for each plan with curves: kNN and the teacher's entropy, by epoch; whether there is a plot."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    curves = {key: (r["accuracies"], r["curve"]) for key, r in kept.items()} | {k: (r, r) for k, r in under_way.items()}
    shown = [plan for plan in plans if any(_points(curves, run, 0, "knn_top1") for run in plan.runs)]
    if not shown:
        return False
    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, rows = plt.subplots(len(shown), 2, figsize=(13, 4 * len(shown)), squeeze=False, layout="constrained")
    for axes, plan in zip(rows, shown, strict=True):
        names = list(dict.fromkeys(run.name for run in plan.runs))
        kinds = (
            (0, "knn_top1", "kNN of training images, %"),
            (1, "teacher_entropy", "teacher's entropy, share of ln K"),
        )
        for axis, (part, what, title) in zip(axes, kinds, strict=True):
            for run in plan.runs:
                if points := _points(curves, run, part, what):
                    style = (".-", ".:", "-", ":")[2 * part + (run.key not in kept)]
                    label = run.name if run.seed == min(r.seed for r in plan.runs if r.name == run.name) else None
                    axis.plot(*zip(*points, strict=True), style, color=f"C{names.index(run.name) % 10}", label=label)
            axis.set_title(f"{plan.name}: {title}", fontsize=10)
            axis.set_xlabel("step (dotted: under way)")
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
        axes[0].legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=90)
    plt.close(figure)
    return True


def _points(curves: dict[str, Any], run: Run, part: int, what: str) -> list[tuple[int, float]]:
    records = curves[run.key][part] if run.key in curves else []
    return [(record["step"], record[what]) for record in records if what in record]
