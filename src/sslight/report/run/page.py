"""The page of ``sslight report``: one or several runs, from their files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sslight.report.page import REPORT, Html, breakable, dot, element, page, sentences, together
from sslight.report.run.curves import INDICATORS, PROBES, SPEED, Curves, run_color
from sslight.report.run.feature_parts import galleries, maps
from sslight.report.run.feature_space import SampledFeatures
from sslight.report.run.files import Run
from sslight.report.run.summary import ACCURACIES, METHOD_NAMES, STATES, duration, steps_reached
from sslight.report.run.tables import (
    bad_images_part,
    cost_table,
    environment_part,
    nonfinite_part,
    results_table,
    settings_tables,
)
from sslight.report.views.sheet import ShownImage, image_sheet, views_legend

_LABELED = {"top1": "top-1", "map": "mean average precision"}


@dataclass(frozen=True)
class Sheet:
    """Images with the views of some runs: for each column the positions of the runs that see these views."""

    data: str
    columns: Sequence[Sequence[int]]
    images: Sequence[ShownImage]


@dataclass(frozen=True)
class Pictures:
    """What needed the images and the networks; sentences where they could not be had."""

    sheets: Sequence[Sheet] = ()
    sampled: Sequence[SampledFeatures] = ()
    missing: Sequence[str] = ()


@dataclass(frozen=True)
class Results:
    """Results of evaluations beside published ones, as plain data, and what is shown of their mistakes."""

    rows: Sequence[Mapping[str, Any]] = ()
    multi_label: Sequence[Mapping[str, Any]] = ()
    detections: Sequence[Mapping[str, Any]] = ()
    mistakes: Sequence[Html] = ()
    note: str = ""
    missing: Sequence[str] = ()


def run_page(runs: Sequence[Run], summaries: Sequence[Mapping[str, Any]], results: Results, pictures: Pictures) -> str:
    """The whole page; ``summaries`` are of :func:`~sslight.report.run.summary.run_summary`, one for each run."""
    names = [together([dot(run_color(position)), breakable(run.name)]) for position, run in enumerate(runs)]
    curves = Curves(runs)
    legend = [element("div", *(element("span", name) for name in names), class_="legend")] if len(runs) > 1 else []
    tables = results_table(results.rows, results.multi_label, results.detections, results.note)
    evaluated = [*tables, *results.mistakes]
    indicators = _charts(legend, curves.charts(INDICATORS))
    sections = [
        ("probes", "Accuracy during the run", _charts(legend, curves.charts(PROBES))),
        ("health", "Health", [*_health(runs, summaries, names, curves), *indicators]),
        ("training", "Training", _charts(legend, curves.training())),
        ("results", "Evaluation", evaluated),
        ("neighbors", "Nearest neighbors", galleries(pictures.sampled, names)),
        ("map", "Map of the features", maps(pictures.sampled, names)),
        ("views", "Views", _views(pictures.sheets, names)),
        ("settings", "Settings", settings_tables(runs, names)),
        ("cost", "Throughput and cost", [*cost_table(summaries, names), *_charts(legend, curves.charts(SPEED))]),
        ("bad-images", "Unreadable images", bad_images_part(runs, names)),
        ("nonfinite", "Non-finite steps", nonfinite_part(runs, names)),
        ("environment", "Environment", environment_part(runs, names)),
    ]
    filled = [(key, heading, parts) for key, heading, parts in sections if parts]
    notes = [f"{run.name}: {note}" for run in runs for note in run.notes] if len(runs) > 1 else runs[0].notes
    return page(
        f"Run {runs[0].name}" if len(runs) == 1 else f"{len(runs)} runs",
        element("div", *(_card(*card) for card in zip(runs, summaries, names, strict=True)), class_="cards"),
        *sentences([*notes, *results.missing, *pictures.missing]),
        element("nav", *(element("a", heading, href=f"#{key}") for key, heading, _ in filled)),
        *(element("section", element("h2", heading, id=key), *parts) for key, heading, parts in filled),
        made_by=REPORT,
    )


def _charts(legend: list[Html], charts: list[Html]) -> list[Html]:
    return [*legend, element("div", *charts, class_="charts")] if charts else []


def _card(run: Run, summary: Mapping[str, Any], name: Html) -> Html:
    method = METHOD_NAMES.get(str(summary["method"]), summary["method"])
    what = " · ".join(str(part) for part in (method, summary["backbone"]) if part)
    lines = [element("h3", name), *([element("p", what)] if what else [])]
    lines.append(element("p", _progress(run, summary), class_="soft"))
    figures = [
        _figure(f"{what} on data.val", f"{one[key]:.1f} %", "95 % interval {:.1f}–{:.1f}".format(*one["interval"]))
        for one in summary["evaluations"]
        for key, what in _LABELED.items()
        if one["protocol"].startswith("finetune") and key in one
    ]
    figures += [
        _figure(ACCURACIES[key], f"{accuracy['last']:.1f} %", _course(accuracy))
        for key, accuracy in summary["accuracies"].items()
    ]
    if summary["health"]:
        lines.append(element("p", _state(summary["health"])))
    if cost := summary["cost"]:
        figures.append(_figure("training", duration(cost["seconds"]), f"{cost['images_per_second']:,.0f} images/s"))
    return element("section", *lines, element("div", *figures, class_="figures"), class_="card")


def _figure(title: str, value: str, detail: str) -> Html:
    above, below = (element("div", text, class_="soft") for text in (title, detail))
    return element("div", above, element("div", value, class_="value"), below)


def _course(accuracy: Mapping[str, Any]) -> str:
    if accuracy["last_step"] == 0:
        return f"{accuracy['beginning']}; not measured since"
    interval = accuracy["untrained_interval"]
    between = "" if interval is None else " ({:.0f}–{:.0f})".format(*interval)
    parts = [] if accuracy["untrained"] is None else [f"{accuracy['beginning']} {accuracy['untrained']:.1f}{between}"]
    if accuracy["best_step"] != accuracy["last_step"]:
        parts.append(f"best {accuracy['best']:.1f} at step {accuracy['best_step']:,}")
    return " · ".join(parts)


def _progress(run: Run, summary: Mapping[str, Any]) -> str:
    epochs = summary["epochs"]
    length = f", {epochs:g} epochs" if isinstance(epochs, int | float) else ""
    if run.finished:
        return f"Finished: {run.step:,} steps{length}."
    written = "" if run.last_written is None else f" Last record {run.last_written:%Y-%m-%d %H:%M} UTC."
    return f"{summary['state'].capitalize()}: step {steps_reached(summary)}{length}.{written}"


def _state(health: Mapping[str, Any]) -> Html:
    advice = [element("br"), f"Try: {health['advice']}."] if health["advice"] else []
    state = element("b", health["state"], class_=f"state is-{_known(health['state'])}")
    return together([state, f" {health['finding']}.", *advice])


def _health(
    runs: Sequence[Run], summaries: Sequence[Mapping[str, Any]], names: Sequence[Html], curves: Curves
) -> list[Html]:
    """For each run that says how it is doing, its states over the steps as a band, and the last one in words."""
    parts: list[Html] = []
    for position, (run, summary, name) in enumerate(zip(runs, summaries, names, strict=True)):
        health = summary["health"]
        if health is None:
            continue
        parts.append(element("p", *([name, "  "] if len(runs) > 1 else []), _state(health), class_="states"))
        parts.append(_band(position, run, curves))
        keys = [
            element("span", element("span", class_=f"swatch is-{_known(state)}"), f"{state} {100 * share:.0f} %")
            for state, share in sorted(health["shares"].items(), key=lambda item: -item[1])
        ]
        whose = ", judged from its figures when this page was made" if health["judged_here"] else ""
        keys.append(element("span", f"of {run.health[-1][0]:,} steps{whose}"))
        parts.append(element("div", *keys, class_="legend soft"))
    return parts


def _known(state: str) -> str:
    return state if state in STATES else "unknown"


def _band(position: int, run: Run, curves: Curves) -> Html:
    """The states of a run over the axis of the curves; a record stands for the steps since the one before."""
    stretches, start = [], 0
    for state, records in groupby(run.health, key=lambda record: record[1]):
        end = list(records)[-1][0]
        left, right = (100 * curves.x_of(position, step) / curves.x_end for step in (start, end))
        style = f"left: {left:.2f}%; width: {max(right - left, 0.2):.2f}%"
        title = f"steps {start:,} to {end:,}: {state}"
        stretches.append(element("span", style=style, class_=f"is-{_known(state)}", title=title))
        start = end
    return element("div", *stretches, class_="band", role="img", aria_label=f"states of {run.name} over its steps")


def _views(sheets: Sequence[Sheet], names: Sequence[Html]) -> list[Html]:
    if not sheets:
        return []
    parts: list[Html] = [
        element("p", "Images as the network saw them in the first epoch, before normalization.", class_="soft"),
        views_legend(),
    ]
    for sheet in sheets:
        shown = sheet.columns if len(names) > 1 else [[] for _ in sheet.columns]
        headings = [together(part for at in column for part in (names[at], " ")) for column in shown]
        if len(sheets) > 1:
            parts.append(element("h3", sheet.data))
        parts += [image_sheet(image, headings, compact=True) for image in sheet.images]
    return parts
