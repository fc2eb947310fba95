"""The page about all runs, finished and under way: tables, paired differences in words, commands, and a plot."""

import fcntl
import json
import string
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from figures import Result, accuracy, compared, ends, filled
from plan import Plan, Run
from plots import draw, draw_over_time

from sslight.files import write_whole

_HEAD = """\
# Evidence

Written by `make evidence` from the plans and results in `benchmarks/replication` as they are now: {finished} of {runs}
runs are finished, {open} are begun.

Accuracies are top-1 in percent on images that the training did not see, measured after the end of a run: on validation
images, or, in plans marked "held out", on a tenth of the training images, to choose by. (Rates and momenta of the 64 px
recipes were chosen earlier, [some of them on validation images of Tiny ImageNet-50](tiny-imagenet.md); what is compared
here shares them.) Weighted kNN with k = 20 and logistic regression (`linear.mode=fast`) know the labels of all images
that the run may train on, or of the share that the plan names, however few of them it trained on; `semi` and `finetune`
train the network with labels, from the file of the backbone. In brackets: 95 % interval over images. The curves and
those of the plots are another measure, on training images alone: kNN of 5,000 of them among each other, each left out
of its own vote, before the first step and after epochs.

Differences are paired image by image and run by run of the same seed (the same first weights, and the same order of
images where batches are alike); **bold** where they are told apart from 0. With one seed, in brackets, the interval
covers other images, not another seed. With several, after ±, it counts both, Student's t over seeds and the spread over
images; of two seeds nothing is told apart. Of comparisons that differ in nothing, one in twenty would still be. Hours
are those of a processor that other work shares, with the measurements, first on the clock, then on the processor.

Names: v2 is MobileNetV2, v3s MobileNetV3-Small at half width, c100 `mobilenetv2_035` on CIFAR-100, c10-small
`resnet18_cifar_025` on CIFAR-10, lite0 EfficientNet-Lite0; "fifth" a fifth of the training images, "select" a run on
held-out images, "sslight" and "baseline" the method's recipes with SSLight's and with usual views, "longer" the
baseline with as many view pixels as SSLight, "6" six local views in place of two, "untrained" the first weights.
[What the verdicts mean](../../docs/health.md)."""

CONCLUSIONS, BEYOND = (Path(__file__).parent / f"{name}.txt" for name in ("conclusions", "beyond"))
_LETTERS = string.ascii_lowercase
_CURVES = {"curve", "accuracies"}  # of a result: lists of records


def write_page(plans: Sequence[Plan], page: Path, *, results: Path, runs: Path) -> None:
    """Write the page and, beside it, the plot (where matplotlib is installed)."""
    read = {path.stem: read_result(path) for path in sorted(results.glob("*.json"))}
    kept = {key: result for key, result in read.items() if result is not None}
    every = [run for plan in plans for run in plan.runs]
    unfinished = [run for run in every if missing_measures(run, kept.get(run.key))]
    under_way = {run.key: records for run in unfinished if (records := begun(runs / run.key)) is not None}
    parts = [_HEAD.format(finished=len(every) - len(unfinished), runs=len(every), open=len(under_way))]
    parts.append(filled(CONCLUSIONS.read_text(encoding="utf-8").rstrip(), kept))
    if under_way:
        parts += ["## Begun", _open_table(plans, under_way, runs)]
    drawn = draw(plans, kept, under_way, page.with_suffix(".png"))
    parts += [
        f"![kNN of training images and the teacher's entropy over the steps of the runs]({page.stem}.png)"
    ] * drawn
    waiting = []
    for plan in plans:
        done = [run for run in plan.runs if run.key in kept]
        if not done:
            waiting.append(f"- **{plan.name}**, {len(plan.runs)} runs. {plan.about}")
            continue
        found = [kept[run.key] for run in done]
        parts += [f"## Plan: {plan.name}", plan.about, _state(plan, kept), _table(found)]
        parts += [*comparisons(plan, kept), *_changed(done, kept)]
        parts.append(_commands(found))
    parts += ["## Plans of which no run is finished", "\n".join(waiting)] * bool(waiting)
    page.parent.mkdir(parents=True, exist_ok=True)
    draw_over_time(kept, page.with_name("beyond.png"))
    write_whole(page.with_name("beyond.md"), filled(BEYOND.read_text(encoding="utf-8"), kept))
    write_whole(page, "\n\n".join(parts) + "\n")


def read_result(path: Path) -> Result | None:
    """A result; None if the file is missing or damaged, which is said."""
    try:
        found: Result = json.loads(path.read_text(encoding="utf-8"))
        if found["measured"] is None:
            return None
        for part in _CURVES & found.keys():
            records: Any = found[part]
            if isinstance(records, dict):  # else of an earlier queue
                records = [dict(zip(records, row, strict=True)) for row in zip(*records.values(), strict=True)]
            found[part] = [{name: value for name, value in each.items() if value is not None} for each in records]
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        print(
            f"{path} is no result ({type(error).__name__}: {error}) and is passed by: mend or remove it",
            file=sys.stderr,
        )
        return None


def write_result(path: Path, result: Result) -> None:
    """For :func:`read_result`. In the file a curve is a list for each value, so that each is named once.

    A value that was not finite and one that was not recorded are both ``null`` there, and missing once read.
    """
    found = dict(result)
    for part in _CURVES & found.keys():
        names = dict.fromkeys(name for record in found[part] for name in record)
        found[part] = {name: [record.get(name) for record in found[part]] for name in names}
    write_whole(path, json.dumps(found, separators=(",", ":"), ensure_ascii=False) + "\n")


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


def comparisons(plan: Plan, kept: dict[str, Result]) -> list[str]:
    """A table of the differences that the plan asks for."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for name, other in dict.fromkeys((run.name, other) for run in plan.runs for other in run.against):
        for measure, (seeds, shown) in compared(name, other, kept):
            rows.setdefault((f"{name} − {other}", ", ".join(map(str, seeds))), {})[measure] = shown
    if not rows:
        return []
    measures = list(dict.fromkeys(measure for row in rows.values() for measure in row))
    lines = [f"| difference | seeds | {' | '.join(measures)} |", "|---" * (len(measures) + 2) + "|"]
    for (name, named), row in rows.items():
        lines.append(f"| {name} | {named} | {' | '.join(row.get(measure, '') for measure in measures)} |")
    return ["\n".join(lines)]


def _table(results: Sequence[Result]) -> str:
    measures = list(dict.fromkeys(name for result in results for name in result["measured"]))
    machines = list(dict.fromkeys(map(_machine, results)))
    late = ("health at a tenth, at the end", "teacher's entropy", "kNN curve")
    heads = ["run", "seed", *measures, "steps", "hours", *["on"] * (len(machines) > 1), *late]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    names = list(dict.fromkeys(result["name"] for result in results))
    for result in sorted(results, key=lambda result: (names.index(result["name"]), result["seed"])):
        cells = [result["name"], str(result["seed"])]
        cells += [accuracy(result["measured"].get(name)) for name in measures]
        cells += [f"{result['steps']:,}", f"{result['hours']:.1f}, {result['processor_hours']:.1f}"]
        cells += [_LETTERS[machines.index(_machine(result))]] * (len(machines) > 1)
        judged = sorted(result["curve"] + result["accuracies"], key=lambda record: record["step"])
        cells += [ends(judged, "health"), ends(result["curve"], "teacher_entropy"), _curve(result["accuracies"])]
        lines.append(f"| {' | '.join(cells)} |")
    named = [
        f"({letter}) " * (len(machines) > 1) + machine for letter, machine in zip(_LETTERS, machines, strict=False)
    ]
    return "\n".join([*lines, "", f"On {'; '.join(named)}."])


def _machine(result: Result) -> str:
    return f"{result['processor']}, precision {result['precision']}, torch {result['versions']['torch']}"


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
            share = {"data.subset": f"images-{how['data.subset']}.txt"} if images and "data.subset" in how else images
            words = " ".join(["seed=SEED"] * (protocol != "knn") + [_words({**how, **share})])
            measured[f"sslight {command} RUN data.train={data}/train data.val={queries} {words}".rstrip()] = None
    where = [
        "# images.txt, HELD_OUT: nine tenths and one tenth of the training images (image_sets in worker.py);",
        "# images-SHARE.txt: that share of images.txt (bank_and_queries)",
    ]
    return "\n".join(["```", *where * any(result.get("held_out") for result in results), *trained, *measured, "```"])


def _words(settings: dict[str, Any]) -> str:
    return " ".join(
        f"{key}={json.dumps(value).strip(chr(34)).replace(' ', '').replace('{data}/', '')}"
        for key, value in settings.items()
    )
