"""The page about all runs, finished and under way: tables, paired differences in words, commands, and a plot."""

import fcntl
import json
import string
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

from plan import Plan, Run

from sslight.files import write_whole
from sslight.intervals import paired_difference, paired_runs

_HEAD = """\
# Evidence

Written by `make evidence` from the plans and results in `benchmarks/replication` as they are now: {finished} of {runs}
runs are finished, {open} are begun.

Accuracies are top-1 in percent on images that the training did not see, measured once a run, after its end: on
validation images that nothing was chosen on, or, in plans marked "held out", on a tenth of the training images, to
choose by. Weighted kNN with k = 20 and logistic regression (`linear.mode=fast`) know the labels of all images that
the run may train on, or of the share that the plan names, however few of them it trained on; `semi` and `finetune`
train the network with labels. In brackets: 95 % interval over images. The curves and those of the plots are another
measure, on training images alone: kNN of 5,000 of them among each other, each left out of its own vote, before the
first step and after epochs.

Differences are paired image by image and run by run of the same seed (the same first weights, and the same order of
images where batches are alike). With one seed, in brackets, the interval covers other images, not another seed. With
several, after ±, it counts both, Student's t over seeds and the spread over images; two seeds are too few for a
verdict. Of comparisons that differ in nothing, one in twenty would still be told apart. Hours are those of a
processor that other work shares, first on the clock, then on the processor."""

_LETTERS = string.ascii_lowercase
Result = dict[str, Any]


def write_page(plans: Sequence[Plan], page: Path, *, results: Path, runs: Path) -> None:
    """Write the page and, beside it, the plot (where matplotlib is installed)."""
    read = {path.stem: read_result(path) for path in sorted(results.glob("*.json"))}
    kept = {key: result for key, result in read.items() if result is not None}
    every = [run for plan in plans for run in plan.runs]
    under_way = {
        run.key: records for run in every if run.key not in kept and (records := begun(runs / run.key)) is not None
    }
    finished = sum(not missing_measures(run, kept.get(run.key)) for run in every)
    parts = [_HEAD.format(finished=finished, runs=len(every), open=len(under_way)), "## What they say so far"]
    parts.append("\n".join(line for plan in plans for line in sentences(plan, kept)) or "No comparison is finished.")
    if under_way:
        parts += ["## Begun", _open_table(plans, under_way, runs)]
    drawn = _draw(plans, kept, under_way, page.with_suffix(".png"))
    parts += [f"![kNN and the teacher's entropy by epoch]({page.stem}.png)"] * drawn
    waiting = []
    for plan in plans:
        done = [run for run in plan.runs if run.key in kept]
        if not done:
            waiting.append(f"- **{plan.name}**, {len(plan.runs)} runs. {plan.about}")
            continue
        found = [kept[run.key] for run in done]
        parts += [f"## Plan: {plan.name}", plan.about, _state(plan, kept), _table(found), *_changed(done, kept)]
        parts.append(_commands(found))
    parts += ["## Plans of which no run is finished", "\n".join(waiting)] * bool(waiting)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_whole(page, "\n\n".join(parts) + "\n")


def read_result(path: Path) -> Result | None:
    """A result; None if the file is missing or damaged, which is said."""
    try:
        found: Result = json.loads(path.read_text(encoding="utf-8"))
        return found if found["measured"] is not None else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        print(
            f"{path} is no result ({type(error).__name__}: {error}) and is passed by: mend or remove it",
            file=sys.stderr,
        )
        return None


def missing_measures(run: Run, result: Result | None) -> list[str]:
    """The measurements of a run that its result lacks."""
    return [name for name in run.measure if result is None or name not in result["measured"]] or (
        ["its training"] if result is None else []
    )


def differing(one: Result, other: Result) -> str | None:
    """The first thing in which two runs differ that would change their result."""
    names = ("recipe", "settings", "seed", "data", "held_out", "code")
    return next((name for name in names if (one.get(name) or None) != (other.get(name) or None)), None)


def records(path: Path) -> list[Result]:
    """The whole lines of a file of JSON lines; a stop or a full disk may have cut one short."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


def begun(folder: Path) -> list[Result] | None:
    """The metrics so far of a run that has begun."""
    return records(folder / "run" / "metrics.jsonl") if (folder / "run.json").exists() else None


def _state(plan: Plan, kept: dict[str, Result]) -> str:
    lacking = {run.key: missing_measures(run, kept[run.key]) for run in plan.runs if run.key in kept}
    whole = sum(not names for names in lacking.values())
    words = f"{'Held out. ' * all(run.held_out for run in plan.runs)}{whole} of its {len(plan.runs)} runs are finished."
    named = "; ".join(f"{key}: {', '.join(names)}" for key, names in lacking.items() if names)
    return f"{words} Not measured: {named}." if named else words


def _changed(runs: Sequence[Run], kept: dict[str, Result]) -> list[str]:
    """A sentence on results that the plan, as it is now, would make otherwise."""
    changed = {run.key: what for run in runs if (what := differing(kept[run.key], run.content))}
    if not changed:
        return []
    return [f"Made when the plan said another: {', '.join(f'{key} ({what})' for key, what in changed.items())}."]


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
    if not all("ranks" in side for both in sides for side in both):
        middle = fmean(one["top1"] - other["top1"] for one, other in sides)
        return f"{middle:+.1f} ({seeds}: nothing is known of chance)"
    right = [[[str(rank) == "0" for rank in side["ranks"]] for side in both] for both in sides]
    if len(pairs) == 1:
        found = paired_difference(*right[0])
        shown = f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"
        return f"{shown} ({seeds} alone: other images, not another seed): **{found.verdict}**"
    found = paired_runs([[a - b for a, b in zip(*both, strict=True)] for both in right])
    shown = f"{found.value:+.1f} ± {found.high - found.value:.1f} ({seeds})"
    return f"{shown}: too few seeds for a verdict" if len(pairs) == 2 else f"{shown}: **{found.verdict}**"


def _table(results: Sequence[Result]) -> str:
    measures = list(dict.fromkeys(name for result in results for name in result["measured"]))
    machines = list(dict.fromkeys(map(_machine, results)))
    ends = ("health at a tenth, at the end", "teacher's entropy", "kNN curve")
    heads = ["run", "seed", *measures, "steps", "hours", *["on"] * (len(machines) > 1), *ends]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    names = list(dict.fromkeys(result["name"] for result in results))
    for result in sorted(results, key=lambda result: (names.index(result["name"]), result["seed"])):
        cells = [result["name"], str(result["seed"])]
        cells += [_accuracy(result["measured"].get(name)) for name in measures]
        cells += [f"{result['steps']:,}", f"{result['hours']:.1f}, {result['processor_hours']:.1f}"]
        cells += [_LETTERS[machines.index(_machine(result))]] * (len(machines) > 1)
        judged = sorted(result["curve"] + result["accuracies"], key=lambda record: record["step"])
        cells += [_ends(judged, "health"), _ends(result["curve"], "teacher_entropy"), _curve(result["accuracies"])]
        lines.append(f"| {' | '.join(cells)} |")
    named = [
        f"({letter}) " * (len(machines) > 1) + machine for letter, machine in zip(_LETTERS, machines, strict=False)
    ]
    return "\n".join([*lines, "", f"On {'; '.join(named)}."])


def _machine(result: Result) -> str:
    return f"{result['processor']}, precision {result['precision']}, torch {result['versions']['torch']}"


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


def _open_table(plans: Sequence[Plan], under_way: dict[str, list[Result]], runs: Path) -> str:
    lines = ["| plan | run | seed | now | steps so far | kNN curve so far | health |", "|---" * 7 + "|"]
    for run in (run for plan in plans for run in plan.runs if run.key in under_way):
        found = under_way[run.key]
        step = max((record["step"] for record in found), default=0)
        health = next((record["health"] for record in reversed(found) if "health" in record), "")
        now = "running" if is_running(runs / run.key) else "stopped"
        lines.append(f"| {run.plan} | {run.name} | {run.seed} | {now} | {step:,} | {_curve(found)} | {health} |")
    return "\n".join(lines)


def is_running(folder: Path) -> bool:
    """Whether a queue, or what it started, works in the folder of a run."""
    with suppress(FileNotFoundError), (folder / ".lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _commands(results: Sequence[Result]) -> str:
    """A line for each training and for each way to measure; what the queue adds changes nothing of the training."""
    trained: dict[str, None] = {}
    measured: dict[str, None] = {}
    for result in results:
        data = result["data"]
        images = {"data.subset": "images.txt"} if result.get("held_out") else {}
        settings = _words({**result["settings"], **images, "precision": result["precision"]})
        if result["code"] == "sslight":
            trained[f"sslight pretrain {result['recipe']} data.train={data}/train seed=SEED {settings}"] = None
        else:
            trained[f"# {result['name']}: {result['code']}, with {result['recipe']} {settings}"] = None
        queries = "HELD_OUT" if result.get("held_out") else f"{data}/val"
        for name, how in result.get("measure", {}).items():
            protocol = name.split()[0]
            command = "finetune" if protocol == "finetune" else f"evaluate {protocol}"
            measured[
                f"sslight {command} RUN data.train={data}/train data.val={queries} {_words({**images, **how})}".rstrip()
            ] = None
    where = ["# images.txt, HELD_OUT: nine tenths and one tenth of the training images (image_sets in worker.py)"]
    return "\n".join(["```", *where * any(result.get("held_out") for result in results), *trained, *measured, "```"])


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

    colors = plt.get_cmap("tab20")
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
                    axis.plot(*zip(*points, strict=True), style, color=colors(names.index(run.name) % 20), label=label)
            axis.set_title(f"{plan.name}: {title}", fontsize=10)
            axis.set_xlabel("step (dotted: under way)")
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
        axes[0].legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=55)
    plt.close(figure)
    return True


def _points(curves: dict[str, Any], run: Run, part: int, what: str) -> list[tuple[int, float]]:
    records = curves[run.key][part] if run.key in curves else []
    return [(record["step"], record[what]) for record in records if what in record]
