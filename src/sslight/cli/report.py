"""``sslight report``: one page about one or several runs."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from sslight.cli.terminal import AsJson, columns, say, show
from sslight.config import build_report


def report(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... [KEY=VALUE]...",
            help="Run folders, and results.json files (or their folders) that do not lie in them; or a folder of "
            "runs, for a table of all in it · output=FILE (FOLDER/report.html; for several report.html) · images=N for "
            "neighbours and map (400; 0 leaves out what needs images) · queries=N (6) · seed=N (0).",
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Make one page about one or several runs: curves, health, accuracies, neighbours, map, views, settings, cost.

    Of a folder of runs: a table with the state, the accuracies and what differs.

    Runs may still be going on. Paths of images in their settings are taken as the run had them: relative ones from
    the current folder.
    """
    paths, settings = build_report(words)
    from sslight.api.report import report_runs_with

    content = report_runs_with(paths, settings).content
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
    total = "" if run["total_steps"] is None else f" of {run['total_steps']:,}"
    return [
        run["name"],
        f"{run['step']:,}{total}",
        run["state"],
        "–" if knn is None else f"{knn['last']:.1f} %",
        "–" if knn is None else f"{knn['best']:.1f} % at step {knn['best_step']:,}",
        "–" if health is None else health["state"],
        "–" if cost is None else f"{cost['images_per_second']:,.0f}",
    ]
