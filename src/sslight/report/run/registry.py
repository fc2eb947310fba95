"""A table of all runs in a folder, as people keep them in spreadsheets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sslight.report.page import REPORT, element, page, sentences, table
from sslight.report.run.files import Run, is_run_folder
from sslight.report.run.summary import ACCURACIES, steps_reached
from sslight.report.run.tables import NOT_COMPARED, command_of, setting_text, setting_value

_SHOWN = 6  # settings that differ


def find_runs(folder: Path, depth: int = 4) -> list[Path]:
    """Run folders below a folder, by name; what lies in a run folder is that run's."""
    if is_run_folder(folder):
        return [folder]
    if not depth:
        return []
    below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [run for path in below for run in find_runs(path, depth - 1)]


def differences(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """For each run the settings that are not the same in all of them, first those that were typed for one."""
    typed = {word.partition("=")[0] for run in runs for word in command_of(run) if "=" in word}
    keys = sorted(dict.fromkeys(key for run in runs for key in run.settings), key=lambda key: key not in typed)
    values = {key: [setting_value(run, key) for run in runs] for key in keys if key not in NOT_COMPARED}
    differing = [key for key, texts in values.items() if len(set(texts)) > 1]
    return [{key: run.settings[key] for key in differing if setting_value(run, key) != "–"} for run in runs]


def registry_table(summaries: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Head and rows, a row for each run, for the terminal and the page alike; columns that say nothing are left out."""
    rows = [["run", "state", "step", "health", *ACCURACIES.values(), "evaluated", "what differs"]]
    for run in summaries:
        accuracies, differs = run["accuracies"], run["differs"]
        texts = [f"{key}={setting_text(value)}" for key, value in list(differs.items())[:_SHOWN]]
        texts += [f"and {len(differs) - _SHOWN} more"] if len(differs) > _SHOWN else []
        rows.append(
            [
                run["name"],
                run["state"],
                steps_reached(run),
                "" if run["health"] is None else run["health"]["state"],
                *(f"{accuracies[name]['last']:.1f} %" if name in accuracies else "" for name in ACCURACIES),
                ", ".join(f"{one['protocol']} {one.get('top1', one.get('map')):.1f} %" for one in run["evaluations"]),
                " ".join(texts),
            ]
        )
    said = [column for column in range(len(rows[0])) if any(row[column] for row in rows[1:])]
    head, *rows = [[row[column] for column in said] for row in rows]
    return head, rows


def registry_page(title: str, summaries: Sequence[Mapping[str, Any]]) -> str:
    """The table as a page; a run that has a report links to it."""
    head, rows = registry_table(summaries)
    for run, row in zip(summaries, rows, strict=True):
        if run["report"] is not None:
            row[0] = element("a", row[0], href=run["report"])
    return page(
        title,
        element(
            "p", "Accuracies are the last recorded ones. A run that has written nothing recently counts as stopped."
        ),
        table(head, rows),
        *sentences([f"{run['name']}: {note}" for run in summaries for note in run["notes"]]),
        made_by=REPORT,
    )
