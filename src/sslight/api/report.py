"""``sslight report`` as a Python function: run folders in, a page about them out."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sslight.api.report_pictures import images_of, pictures_of, worst_images
from sslight.config import PretrainSettings, ReportSettings, build
from sslight.evaluate.results import read_result, result_files
from sslight.evaluate.rows import (
    compare_detections,
    compare_multi_label,
    compare_results,
    is_multi_label,
    published_note,
)
from sslight.files import write_whole
from sslight.intervals import wilson_interval
from sslight.pretraining.health import HealthWatch, healthy_ranges
from sslight.reading import near_name
from sslight.report.page import Html, PageResult, check_page_file, element
from sslight.report.run.files import Run, is_run_folder, read_run
from sslight.report.run.mistakes import mistakes_parts
from sslight.report.run.page import Pictures, Results, run_page
from sslight.report.run.registry import differences, find_runs, registry_page
from sslight.report.run.summary import run_summary, used_gpus

_MOST_RUNS = 6  # colors that are told apart


def report_runs(
    runs: str | Path | Sequence[str | Path],
    *,
    output: str | Path | None = None,
    images: int = 400,
    queries: int = 6,
    seed: int = 0,
) -> PageResult:
    """Make one page about one or several runs, finished or not.

    ``report_runs(["runs/first", "runs/second"], output="both.html")``

    Args:
        runs: Run folders, and optionally ``results.json`` files (or their folders) of evaluations; or a folder of
            runs, for a table of all of them.
        output: The page; by default ``report.html`` in the run folder, or in the current one for several runs.
        images: Images whose features are computed, for neighbors and map; 0 leaves out these and the views.
        queries: Images whose nearest neighbors are shown.
        seed: Chooses the images.

    Raises ValueError, before anything is written, if a setting or a path is wrong, or another file is at ``output``.
    """
    paths = [runs] if isinstance(runs, str | Path) else runs
    values = {"output": output, "images": images, "queries": queries, "seed": seed}
    return report_runs_with([Path(path) for path in paths], build(ReportSettings, values))


def report_runs_with(paths: Sequence[Path], settings: ReportSettings) -> PageResult:
    """:func:`report_runs` with settings that are already resolved."""
    folders, files, listed = _told_apart(paths)
    page = _page_file(settings.output, paths if listed else folders)
    names = [folder.resolve().name for folder in folders]
    runs = [
        read_run(folder, name=name if names.count(name) == 1 else str(folder))
        for folder, name in zip(folders, names, strict=True)
    ]
    results, pictures = Results(), Pictures()
    if listed:
        runs = [run if run.health else _judged(run) for run in runs]
        summaries = [
            _summary(run) | {"differs": differs, "report": _link(page, run)}
            for run, differs in zip(runs, differences(runs), strict=True)
        ]
        text = registry_page(f"Runs in {' '.join(map(str, paths))}", summaries)
    else:
        runs = [_with_references(_judged(run), settings) for run in runs]
        summaries = [_summary(run) for run in runs]
        results = _results(folders, files, with_pictures=settings.images > 0)
        if settings.images:
            pictures = pictures_of(runs, settings)
        text = run_page(runs, summaries, results, pictures)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_whole(page, text)
    content = {
        "page": str(page),
        "runs": summaries,
        "results": [*results.rows, *results.multi_label, *results.detections],
        "notes": [*results.missing, *pictures.missing],
    }
    return PageResult(page, content)


def framed_report(path: Path) -> str:
    """The page about a run's figures in a frame of its own, so that its style stays inside."""
    run = _with_references(_judged(read_run(path, name=path.resolve().name)), ReportSettings(images=0))
    text = run_page([run], [_summary(run)], Results(), Pictures())
    return element("iframe", srcdoc=text, width="100%", height=560, style="border: 0", title=f"Report of {path}")


def _page_file(output: Path | None, folders: Sequence[Path]) -> Path:
    """Where the page goes; no browser opens a file without the suffix of a page."""
    page = output or (folders[0] / "report.html" if len(folders) == 1 else Path("report.html"))
    page = page.expanduser()
    if not page.exists() and page.suffix.lower() not in (".html", ".htm"):
        page = page.with_name(f"{page.name}.html")
    check_page_file(page)
    return page


def _told_apart(paths: Sequence[Path]) -> tuple[list[Path], list[Path], bool]:
    """Run folders, results of evaluations, and whether the runs are all those in a folder."""
    folders: list[Path] = []
    files, listed = [], False
    for path in paths:
        if path.is_dir() and is_run_folder(path):
            folders.append(path)
        elif path.is_file() or (path / "results.json").is_file():
            files.append(path)
        elif path.is_dir() and (found := find_runs(path)):
            folders, listed = [*folders, *found], True
        else:
            what = "holds no run" if path.is_dir() else "does not exist"
            raise ValueError(
                f"{path} {what}: give the folder that `sslight pretrain` wrote (its output=){near_name(path)}"
            )
    if not folders:
        raise ValueError("no run given: give a run folder, or show results alone with `sslight compare`.")
    if listed and files:
        raise ValueError(
            f"{files[0]} does not belong in a table of all runs in a folder: name single runs, or leave it out."
        )
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError(f"{max(folders, key=folders.count)} is given twice: name each run once.")
    if len(folders) > _MOST_RUNS and not listed:
        raise ValueError(
            f"{len(folders)} runs are given, but a page holds at most {_MOST_RUNS}: name fewer, or the folder of all."
        )
    return folders, files, listed


def _summary(run: Run) -> dict[str, Any]:
    """Of the run, and the top-1 (or mean average precision) of its evaluations; damaged ones are left out."""
    found = []
    for path in result_files(run.path):
        with suppress(ValueError, KeyError, TypeError):
            content = read_result(path)
            key = "map" if is_multi_label(content) else "top1"
            low, high = map(float, content["accuracy"][f"{key}_interval"])
            value = float(content["accuracy"][key])
            found.append({"protocol": content["protocol"], key: value, "interval": (low, high)})
    return run_summary(run) | {"evaluations": found}


def _link(page: Path, run: Run) -> str | None:
    """From the table of all runs to the run's own report."""
    own = run.path / "report.html"
    return Path(os.path.relpath(own, page.parent)).as_posix() if own.is_file() and own != page else None


def _rows(run: Run, settings: PretrainSettings) -> int:
    """Images that a process has in one forward pass."""
    return max(2, settings.batch_size // settings.accumulate // max(1, len(used_gpus(run))))


def _judged(run: Run) -> Run:
    """The run with the last verdict in words, which its files do not keep; runs without states are given some.

    The figures are judged again as in training. Where the last state is then another one than the run has noted
    (with thresholds of another version, or a number of processes that is not known), the words are left out.
    """
    if run.pretraining is None:
        return run
    rows, number = _rows(run, run.pretraining), run.measured_images
    watch = HealthWatch(run.pretraining, rows=rows, **({} if number is None else {"measured": number}))
    figures: dict[int, dict[str, float]] = {}
    for name, series in run.series.items():
        for step, value in series:
            figures.setdefault(step, {})[name] = value
    records = [(step, record) for step, record in sorted(figures.items()) if record.keys() & {"loss", "knn_top1"}]
    try:
        verdicts = [(step, watch.judge(step, record)) for step, record in records]
    except KeyError:  # figures that another version did not record
        return run
    if not verdicts:
        return run
    last = verdicts[-1][1]
    if not run.health:
        run = replace(run, health=[(step, verdict.state) for step, verdict in verdicts], judged_here=True)
    return replace(run, finding=last.finding, advice=last.advice) if run.health[-1][1] == last.state else run


def _with_references(run: Run, page: ReportSettings) -> Run:
    """The run with what its curves are read against: healthy ranges, and how sure the first accuracies are."""
    settings = run.pretraining
    if settings is None:
        return run
    number = (run.measured_images or 0) if settings.data.val else 0
    if page.images and settings.data.val and not number:
        with suppress(ValueError, OSError):
            number = len(images_of(settings)[0])
    intervals = {
        name: wilson_interval(round(series[0][1] * number / 100), number)
        for name, series in run.series.items()
        if number and name in ("knn_top1", "linear_top1") and series[0][0] == 0 and 0 <= series[0][1] <= 100
    }
    return replace(run, intervals=intervals, healthy=healthy_ranges(settings, rows=_rows(run, settings)))


def _results(folders: Sequence[Path], files: Sequence[Path], *, with_pictures: bool) -> Results:
    """Results that are named (whose faults are errors) and those in the run folders (whose faults are noted)."""
    missing: list[str] = []
    contents = {(path / "results.json" if path.is_dir() else path).resolve(): read_result(path) for path in files}
    for path in (path for folder in folders for path in result_files(folder)):
        try:
            contents.setdefault(path.resolve(), read_result(path))
        except ValueError as error:
            missing.append(str(error))
    rows, multi_label, detections = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    mistakes: list[Html] = []
    for path, content in contents.items():
        try:
            notes = content.get("notes", [])
            if not isinstance(notes, list):
                raise TypeError("notes are no list")
            missing += [f"{path.parent.name}: {note}" for note in notes]
            if content["protocol"] == "detect":
                compare_detections([content])
                detections.append(content)
                continue
            (compare_multi_label if is_multi_label(content) else compare_results)([content])
            thumbnails, note = worst_images(content) if with_pictures else ({}, None)
            missing += [f"{path}: {note}"] if note else []
            mistakes += mistakes_parts(content, thumbnails, name=path.parent.name)
            (multi_label if is_multi_label(content) else rows).append(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            missing.append(f"{path} is damaged ({type(error).__name__}: {error}) and was left out.")
    return Results(
        rows=[asdict(row) for row in compare_results(rows)],
        multi_label=[asdict(row) for row in compare_multi_label(multi_label)],
        detections=[asdict(row) for row in compare_detections(detections)],
        mistakes=mistakes,
        note=f"Published: {published_note(classified=bool(rows))}",
        missing=missing,
    )
