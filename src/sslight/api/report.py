"""``sslight report`` as a Python function: run folders in, a page about them out."""

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sslight.api.pretrain import training_source
from sslight.api.views import shown_views
from sslight.backbones import load_backbone, read_backbone_info
from sslight.config import PretrainSettings, ReportSettings, build_report_settings, read_settings
from sslight.data import BadImage, Source, SubsetSource, WorkerFailed, build_source, image_batches, readable_images
from sslight.evaluate import (
    compare_detections,
    compare_results,
    extract_features,
    published_note,
    read_result,
    wilson_interval,
)
from sslight.files import write_whole
from sslight.pretraining.health import HealthWatch
from sslight.report import (
    Pictures,
    ResultOfClasses,
    Results,
    Run,
    SampledFeatures,
    Sheet,
    ShownImage,
    check_page_file,
    differences,
    drawn_queries,
    find_runs,
    is_run_folder,
    nearest_images,
    normalized_rows,
    read_run,
    registry_page,
    run_page,
    run_summary,
    spread_sample,
    thumbnail,
    used_gpus,
)
from sslight.views import build_multi_crop

_MOST_RUNS = 6  # colours that are told apart
_NEIGHBORS = 7
_SHOWN_IMAGES = 3


@dataclass(frozen=True)
class ReportResult:
    """The page, and the runs on it in figures, as plain data."""

    page: Path
    content: dict[str, Any]


def report_runs(
    runs: str | Path | Sequence[str | Path],
    *,
    output: str | Path | None = None,
    images: int = 400,
    queries: int = 6,
    seed: int = 0,
) -> ReportResult:
    """Make one page about one or several runs, also while they are still going on.

    ``report_runs(["runs/first", "runs/second"], output="both.html")``

    Args:
        runs: Run folders, and further ``results.json`` files (or their folders) of evaluations; or a folder of runs,
            for a table of all of them.
        output: The page; ``report.html`` in the (only) folder that is named, or in the current one.
        images: Images of which features are computed, for neighbours and map; 0 leaves these and the views out.
        queries: Images whose nearest neighbours are shown.
        seed: Chooses the images.

    Raises:
        ValueError: a setting or a path is wrong, or there is another file at ``output``; nothing has been
            written then.
    """
    paths = [runs] if isinstance(runs, str | Path) else runs
    values = {"output": output, "images": images, "queries": queries, "seed": seed}
    return report_runs_with([Path(path) for path in paths], build_report_settings(values))


def report_runs_with(paths: Sequence[Path], settings: ReportSettings) -> ReportResult:
    """:func:`report_runs` with settings that are already resolved."""
    folders, files, listed = _told_apart(paths)
    page = _page_file(settings.output, paths if listed else folders)
    names = [folder.resolve().name for folder in folders]
    runs = [
        read_run(folder, name=name if names.count(name) == 1 else str(folder))
        for folder, name in zip(folders, names, strict=True)
    ]
    known = _known_settings(runs)
    if listed:
        runs = [run if run.health or at not in known else _judged(run, known[at]) for at, run in enumerate(runs)]
        summaries = [
            run_summary(run) | {"differs": differs, "evaluations": _evaluations(run), "report": _link(page, run)}
            for run, differs in zip(runs, differences(runs), strict=True)
        ]
        text = registry_page(f"Runs in {' '.join(map(str, paths))}", summaries)
        results, pictures = Results(), Pictures()
    else:
        results = _results(folders, files)
        runs = [
            _with_references(_judged(run, known[at]), known[at], settings) if at in known else run
            for at, run in enumerate(runs)
        ]
        summaries = [run_summary(run) for run in runs]
        pictures = _pictures(runs, known, settings) if settings.images else Pictures()
        text = run_page(runs, summaries, results, pictures)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_whole(page, text)
    content = {
        "page": str(page),
        "runs": summaries,
        "results": [*results.rows, *results.detections],
        "notes": [*results.missing, *pictures.missing],
    }
    return ReportResult(page, content)


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
            raise ValueError(f"{path} {what}: give the folder that `sslight pretrain` wrote (its output=).")
    if not folders:
        raise ValueError(
            "no run is named: give the folder that `sslight pretrain` wrote; `sslight compare` shows results alone."
        )
    if listed and files:
        raise ValueError(f"{files[0]} has no place in a table of all runs in a folder: name runs, or leave it out.")
    resolved = [folder.resolve() for folder in folders]
    if len(set(resolved)) < len(folders):
        raise ValueError(f"{max(folders, key=folders.count)} is given twice: name each run once.")
    if len(folders) > _MOST_RUNS and not listed:
        raise ValueError(
            f"{len(folders)} runs are named, and a page tells {_MOST_RUNS} apart: name fewer, or the folder that they "
            "lie in for a table of all."
        )
    return folders, files, listed


def _evaluations(run: Run) -> list[dict[str, Any]]:
    """Protocol and top-1 of the run's evaluations; damaged ones are left out."""
    found = []
    for path in _result_files(run.path):
        with suppress(ValueError, KeyError, TypeError):
            content = read_result(path)
            found.append({"protocol": content["protocol"], "top1": float(content["accuracy"]["top1"])})
    return found


def _result_files(folder: Path) -> list[Path]:
    return [*sorted(folder.glob("results.json")), *sorted(folder.glob("evaluation/*/results.json"))]


def _link(page: Path, run: Run) -> str | None:
    """From the table of all runs to the run's own report."""
    own = run.path / "report.html"
    return Path(os.path.relpath(own, page.parent)).as_posix() if own.is_file() and own != page else None


def _with_references(run: Run, settings: PretrainSettings, page: ReportSettings) -> Run:
    """The run with what its curves are read against: healthy ranges, and how sure the first accuracies are."""
    number = 0
    if page.images:
        with suppress(ValueError, OSError):
            if settings.data.val:
                number = len(build_source(settings.data.val, labeled=True, setting="data.val"))
    intervals = {
        name: wilson_interval(round(series[0][1] * number / 100), number)
        for name, series in run.series.items()
        if number and name in ("knn_top1", "linear_top1") and series[0][0] == 0 and 0 <= series[0][1] <= 100
    }
    return replace(run, intervals=intervals, healthy=healthy_ranges(settings, rows=_rows(run, settings)))


def healthy_ranges(settings: PretrainSettings, *, rows: int) -> dict[str, tuple[float, float]]:
    """Where figures are in a run that learns; beyond, :class:`HealthWatch` finds fault, whatever the others are."""
    most, dino = min(rows, 256) - 1, settings.dino
    told = 0.12 * math.log(min(dino.head_output_dim, settings.views.num_global * rows)) / math.log(dino.head_output_dim)
    return {
        "feature_spread": (0.05, math.inf),
        "effective_rank": (min(0.3 * most, 15), math.inf),
        "data_wait_share": (-math.inf, 0.3),
        "teacher_entropy": (-math.inf, 1 - told),
        "target_spread": (told, math.inf),
        "assignment_entropy": (-math.inf, 0.97),
    }


def _rows(run: Run, settings: PretrainSettings) -> int:
    """Images that a process has in one forward pass."""
    return max(2, settings.batch_size // settings.accumulate // max(1, len(used_gpus(run))))


def _results(folders: Sequence[Path], files: Sequence[Path]) -> Results:
    """Results that are named (whose faults are errors) and those in the run folders (whose faults are noted)."""
    contents, missing = {}, []
    for path in files:
        content = read_result(path)
        contents[(path / "results.json" if path.is_dir() else path).resolve()] = content
    for folder in folders:
        for path in _result_files(folder):
            try:
                contents.setdefault(path.resolve(), read_result(path))
            except ValueError as error:
                missing.append(str(error))
    rows, detections, classes = [], [], []
    for path, content in contents.items():
        try:
            if content["protocol"] == "detect":
                detections += [content] if compare_detections([content]) else []
            else:
                rows += [content] if compare_results([content]) else []
                classes.append(ResultOfClasses.read(content))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            missing.append(f"{path} is damaged ({type(error).__name__}: {error}) and left out.")
    return Results(
        rows=[asdict(row) for row in compare_results(rows)],
        classes=[one for one in classes if one.accuracies],
        detections=[asdict(row) for row in compare_detections(detections)],
        note=f"Published: {published_note(classified=bool(rows))}",
        missing=missing,
    )


def _known_settings(runs: Sequence[Run]) -> dict[int, PretrainSettings]:
    """The settings of the runs, by position, that are of pre-training and that this version understands."""
    known = {}
    for position, run in enumerate(runs):
        with suppress(ValueError):
            known[position] = read_settings(run.path / "config.yaml", PretrainSettings)
    return known


def _judged(run: Run, settings: PretrainSettings) -> Run:
    """The run with the last verdict in words, which its files do not keep; runs without states are given some.

    The figures are judged again as in training. Where the last state is then another one than the run has noted
    (with thresholds of another version, or a number of processes that is not known), the words are left out.
    """
    watch = HealthWatch(settings, rows=_rows(run, settings))
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


def _pictures(runs: Sequence[Run], known: dict[int, PretrainSettings], page: ReportSettings) -> Pictures:
    """Views, neighbours and features of the runs whose images and networks can be had."""
    missing = [
        f"{run.name}: no views, neighbours or map, since its config.yaml is not one of pre-training with this version."
        for position, run in enumerate(runs)
        if position not in known
    ]
    sampled = []
    for position, settings in known.items():
        try:
            sampled.append(_sampled(position, runs[position], settings, page))
        except (ValueError, OSError, WorkerFailed) as error:
            missing.append(f"{runs[position].name}: no neighbours and no map: {_sentence(error)}")
    return Pictures(_sheets(runs, known, page.seed, missing), sampled, missing)


def _sentence(error: Exception) -> str:
    text = str(error)
    return text if text.endswith((".", "?")) else f"{text}."


def _sampled(position: int, run: Run, settings: PretrainSettings, page: ReportSettings) -> SampledFeatures:
    """Features and neighbours of a run. Raises ValueError if there are no weights or images."""
    weights = next((name for name in _WEIGHTS if (run.path / name).is_file()), None)
    if weights is None:
        raise ValueError("the run has no checkpoint yet")
    source, what = _images_of(settings)
    sample = SubsetSource(source, spread_sample(source.labels, len(source), page.images, page.seed))
    info = read_backbone_info(run.path / weights)
    backbone = load_backbone(run.path / weights)
    features, readable = extract_features(
        backbone, sample, image_size=info.image_size, mean=info.mean, std=info.std, batch_size=64
    )
    kept = np.flatnonzero(readable.numpy())
    if len(kept) < 2:
        raise ValueError(f"{what} has fewer than two readable images")
    rows = normalized_rows(features.numpy()[kept])
    order = np.random.Generator(np.random.Philox([page.seed, 1])).permutation(len(kept))
    labels = None if sample.labels is None else sample.labels[kept]
    queries = drawn_queries(order, labels, page.queries)
    neighbors, cosines = nearest_images(rows, queries, _NEIGHBORS)
    shown = np.unique(np.concatenate([queries, neighbors.ravel()]))
    pixels = image_batches(sample, size=info.image_size, batch_size=64, workers=0, indices=kept[shown], bad=[])
    small = [thumbnail(image.permute(1, 2, 0).numpy()) for images, _, _ in pixels for image in images]
    return SampledFeatures(
        run=position,
        weights=weights,
        data=what,
        names=[sample.name(int(index)) for index in kept],
        classes=sample.classes,
        labels=labels,
        features=rows,
        queries=queries,
        neighbors=neighbors,
        cosines=cosines,
        thumbnails=dict(zip(shown.tolist(), small, strict=True)),
    )


_WEIGHTS = ("backbone.safetensors", "checkpoints/last.pt")


def _images_of(settings: PretrainSettings) -> tuple[Source, str]:
    """Validation images, or training images if there are none; with labels if they have some."""
    paths, setting = (settings.data.val, "data.val") if settings.data.val else (settings.data.train, "data.train")
    what = f"{setting}={' '.join(paths)}"
    try:
        return build_source(paths, labeled=True, setting=setting), what
    except ValueError:
        return build_source(paths, labeled=False, setting=setting), what


def _sheets(runs: Sequence[Run], known: dict[int, PretrainSettings], seed: int, missing: list[str]) -> list[Sheet]:
    """For each set of training images a few of them with the views of all runs that train on it."""
    groups: dict[str, list[int]] = {}
    for position, settings in known.items():
        groups.setdefault(settings.data.model_dump_json(include={"train", "subset", "subset_seed"}), []).append(
            position
        )
    sheets = []
    for positions in groups.values():
        try:
            sheets.append(_sheet(positions, known, seed))
        except (ValueError, OSError, WorkerFailed) as error:
            names = ", ".join(runs[position].name for position in positions)
            missing.append(f"{names}: no views: {_sentence(error)}")
    return sheets


def _sheet(positions: Sequence[int], known: dict[int, PretrainSettings], seed: int) -> Sheet:
    """Runs with the same views and the same seed share a column."""
    columns: dict[str, list[int]] = {}
    for position in positions:
        settings = known[position]
        columns.setdefault(f"{settings.seed} {settings.views.model_dump_json()}", []).append(position)
    firsts = [known[column[0]] for column in columns.values()]
    multi_crops = [build_multi_crop(settings.views) for settings in firsts]
    source = training_source(firsts[0], labeled=False)
    bad: list[BadImage] = []
    shown = []
    for index, image in islice(readable_images(source, seed=seed, bad=bad), _SHOWN_IMAGES):
        views = [
            shown_views(multi_crop, image, (settings.seed, 0, index))
            for multi_crop, settings in zip(multi_crops, firsts, strict=True)
        ]
        shown.append(ShownImage(source.name(index), image.permute(1, 2, 0).numpy(), views))
    return Sheet(" ".join(firsts[0].data.train), list(columns.values()), shown)
