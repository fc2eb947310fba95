"""``sslight report``: one page about one or more runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslight.cli.grammar import Words
from sslight.cli.terminal import AsJson, columns, say, show
from sslight.config import ReportSettings, read_words, take_settings


def report(words: Words = None, as_json: AsJson = False) -> None:
    """Make a page about one or more runs: curves, health, accuracies, neighbors, map, views, settings, cost.

    For a folder of runs: a table with the state, the accuracies and the differences.

    Runs may still be running. Relative image paths in their settings are resolved from the current folder.
    """
    runs, typed = read_words("report", words)
    settings = take_settings(typed, ReportSettings)
    from sslight.api.report import report_runs_with

    content = report_runs_with([Path(run).expanduser() for run in runs], settings).content
    show(content, content, _print_result, as_json=as_json)


def _print_result(content: Mapping[str, Any]) -> None:
    from sslight.report.run.registry import registry_table

    runs = content["runs"]
    if "differs" in runs[0]:
        head, rows = registry_table(runs)
        shown = head.index("what differs") if "what differs" in head else len(head)  # the last, and long
        say(columns(head[:shown], (row[:shown] for row in rows)), narrowest=100)
        for row in rows:
            if differing := " ".join(row[shown:]):
                say(f"{row[0]}: {differing}")
    else:
        say(columns(("run", "step", "state", "kNN top-1", "best", "health", "images/s"), map(_row, runs)))
    notes = [f"{run['name']}: {note}" for run in runs for note in run["notes"]]
    for note in [*notes, *content["notes"]]:
        say(f"note: {note}")
    say(f"page  {content['page']}")


def _row(run: Mapping[str, Any]) -> list[str]:
    knn, health, cost = run["accuracies"].get("knn_top1"), run["health"], run["cost"]
    from sslight.report.run.summary import steps_reached

    return [
        run["name"],
        steps_reached(run),
        run["state"],
        "–" if knn is None else f"{knn['last']:.1f} %",
        "–" if knn is None else f"{knn['best']:.1f} % at step {knn['best_step']:,}",
        "–" if health is None else health["state"],
        "–" if cost is None else f"{cost['images_per_second']:,.0f}",
    ]
