"""``sslight report`` as a Python function: run folders in, a page about them out."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslight.api.views import shown_image
from sslight.backbones import load_backbone, load_backbone_weights, read_backbone_info
from sslight.config import PretrainSettings, ReportSettings, build
from sslight.data import (
    BadImage,
    ReadLimits,
    Source,
    SubsetSource,
    WorkerFailed,
    build_source,
    build_training_source,
    image_batches,
    readable_images,
)
from sslight.evaluate.classifiers.knn import nearest_neighbors
from sslight.evaluate.rows import compare_detections, compare_results, published_note
from sslight.evaluate.features.extract import EvalTransform, Extraction, extract_features
from sslight.evaluate.results import read_result, result_files
from sslight.files import write_whole
from sslight.intervals import wilson_interval
from sslight.methods import build_method
from sslight.pretraining.health import HealthWatch, healthy_ranges
from sslight.reading import near_name
from sslight.report.page import PageResult, check_page_file, element
from sslight.report.run.feature_space import SampledFeatures, drawn_queries, spread_sample, thumbnail
from sslight.report.run.files import Run, is_run_folder, read_run
from sslight.report.run.page import Pictures, Results, Sheet, run_page
from sslight.report.run.registry import differences, find_runs, registry_page
from sslight.report.run.summary import run_summary, used_gpus
from sslight.report.run.tables import classes_part
from sslight.views import build_multi_crop

_MOST_RUNS = 6  # colors that are told apart
_NEIGHBORS = 7
_SHOWN_IMAGES = 3
_WEIGHTS = ("backbone.safetensors", "checkpoints/last.pt")


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
            run_summary(run) | {"differs": differs, "evaluations": _evaluations(run), "report": _link(page, run)}
            for run, differs in zip(runs, differences(runs), strict=True)
        ]
        text = registry_page(f"Runs in {' '.join(map(str, paths))}", summaries)
    else:
        runs = [_with_references(_judged(run), settings) for run in runs]
        summaries = [run_summary(run) for run in runs]
        results = _results(folders, files)
        if settings.images:
            pictures = _pictures(runs, settings)
        text = run_page(runs, summaries, results, pictures)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_whole(page, text)
    content = {
        "page": str(page),
        "runs": summaries,
        "results": [*results.rows, *results.detections],
        "notes": [*results.missing, *pictures.missing],
    }
    return PageResult(page, content)


def framed_report(path: Path) -> str:
    """The page about a run's figures in a frame of its own, so that its style stays inside."""
    run = _with_references(_judged(read_run(path, name=path.resolve().name)), ReportSettings(images=0))
    text = run_page([run], [run_summary(run)], Results(), Pictures())
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


def _evaluations(run: Run) -> list[dict[str, Any]]:
    """Protocol and top-1 of the run's evaluations; damaged ones are left out."""
    found = []
    for path in result_files(run.path):
        with suppress(ValueError, KeyError, TypeError):
            content = read_result(path)
            found.append({"protocol": content["protocol"], "top1": float(content["accuracy"]["top1"])})
    return found


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
            number = len(_images_of(settings)[0])
    intervals = {
        name: wilson_interval(round(series[0][1] * number / 100), number)
        for name, series in run.series.items()
        if number and name in ("knn_top1", "linear_top1") and series[0][0] == 0 and 0 <= series[0][1] <= 100
    }
    return replace(run, intervals=intervals, healthy=healthy_ranges(settings, rows=_rows(run, settings)))


def _results(folders: Sequence[Path], files: Sequence[Path]) -> Results:
    """Results that are named (whose faults are errors) and those in the run folders (whose faults are noted)."""
    missing: list[str] = []
    contents = {(path / "results.json" if path.is_dir() else path).resolve(): read_result(path) for path in files}
    for path in (path for folder in folders for path in result_files(folder)):
        try:
            contents.setdefault(path.resolve(), read_result(path))
        except ValueError as error:
            missing.append(str(error))
    rows, detections, classes = [], [], []
    for path, content in contents.items():
        try:
            if content["protocol"] == "detect":
                compare_detections([content])
                detections.append(content)
            elif (
                content["protocol"] == "finetune (multi-label)"
            ):  # of labels that do not exclude each other: nothing published compares
                classes += classes_part(content)
            else:
                compare_results([content])
                classes += classes_part(content)
                rows.append(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            missing.append(f"{path} is damaged ({type(error).__name__}: {error}) and was left out.")
    return Results(
        rows=[asdict(row) for row in compare_results(rows)],
        detections=[asdict(row) for row in compare_detections(detections)],
        classes=classes,
        note=f"Published: {published_note(classified=bool(rows))}",
        missing=missing,
    )


def _pictures(runs: Sequence[Run], page: ReportSettings) -> Pictures:
    """Views, neighbors and features of the runs whose images and networks can be had."""
    sampled, sheets, missing = [], [], []
    by_images: dict[str, list[int]] = {}  # positions of the runs that train on the same images
    for position, run in enumerate(runs):
        if run.pretraining is None:
            what = "no views, neighbors or map, because its config.yaml is not of pre-training with this version"
            missing.append(f"{run.name}: {what}.")
            continue
        images = run.pretraining.data.model_dump_json(include={"train", "subset", "subset_seed"})
        by_images.setdefault(images, []).append(position)
        try:
            sampled += _sampled(position, run, run.pretraining, page, with_start=len(runs) == 1)
        except (ValueError, OSError, WorkerFailed) as error:
            missing.append(f"{run.name}: no neighbors and no map: {_sentence(error)}")
    for positions in by_images.values():
        try:
            sheets.append(_sheet(positions, runs, page.seed))
        except (ValueError, OSError, WorkerFailed) as error:
            missing.append(f"{', '.join(runs[at].name for at in positions)}: no views: {_sentence(error)}")
    return Pictures(sheets, sampled, missing)


def _sentence(error: Exception) -> str:
    text = str(error)
    return text if text.endswith((".", "?")) else f"{text}."


def _sampled(
    position: int, run: Run, settings: PretrainSettings, page: ReportSettings, *, with_start: bool
) -> list[SampledFeatures]:
    """Features and neighbors before (if asked for) and after training. Raises ValueError without weights or images."""
    weights = next((name for name in _WEIGHTS if (run.path / name).is_file()), None)
    if weights is None:
        raise ValueError("the run has no checkpoint yet")
    source, what = _images_of(settings)
    limits = _limits(settings)
    sample = SubsetSource(source, spread_sample(source.labels, len(source), page.images, page.seed))
    info = read_backbone_info(run.path / weights)
    transform, how = EvalTransform(info.image_size, info.mean, info.std), Extraction(batch_size=64, limits=limits)
    networks = {weights: load_backbone(run.path / weights)}
    if with_start:
        networks = _start(settings) | networks
    rows: dict[str, Tensor] = {}
    for name, network in networks.items():
        features, readable = extract_features(network, sample, transform, how)
        kept = np.flatnonzero(readable.numpy())  # the same of each network
        if len(kept) < 2:
            raise ValueError(f"{what} has fewer than two readable images")
        rows[name] = F.normalize(features[kept])
    labels = None if sample.labels is None else sample.labels[kept]
    queries = drawn_queries(labels, len(kept), page.queries, page.seed)
    near = {
        name: nearest_neighbors(found, found, k=min(_NEIGHBORS, len(kept) - 1), leave_one_out=True)
        for name, found in rows.items()
    }
    shown = np.unique(np.concatenate([queries, *(found.numpy()[queries].ravel() for _, found in near.values())]))
    pixels = image_batches(
        sample, size=info.image_size, batch_size=64, workers=0, indices=kept[shown], bad=[], limits=limits
    )
    small = [thumbnail(image.permute(1, 2, 0).numpy()) for images, _, _ in pixels for image in images]
    return [
        SampledFeatures(
            run=position,
            weights=name,
            data=what,
            names=[sample.name(int(index)) for index in kept],
            classes=sample.classes,
            labels=labels,
            features=rows[name].numpy(),
            neighbors=neighbors.numpy(),
            cosines=cosines.numpy(),
            queries=queries,
            thumbnails=dict(zip(shown.tolist(), small, strict=True)),
        )
        for name, (cosines, neighbors) in near.items()
    ]


def _start(settings: PretrainSettings) -> dict[str, nn.Module]:
    """The network before its first step, by its name; none if the weights that it began with are gone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = build_method(settings).backbone.eval()
    if settings.init_from is None:
        return {"untrained": network}
    try:
        load_backbone_weights(network, settings.init_from, mean=settings.views.mean, std=settings.views.std)
    except (ValueError, OSError):
        return {}
    return {f"init_from={settings.init_from}": network}


def _images_of(settings: PretrainSettings) -> tuple[Source, str]:
    """Validation images, or training images if there are none; with labels if they have some."""
    data = settings.data
    paths, setting, labels = (
        (data.val, "data.val", data.val_labels) if data.val else (data.train, "data.train", data.labels)
    )
    build = partial(build_source, paths, setting=setting, tar_image=data.tar_image)
    what = f"{setting}={' '.join(paths)}"
    try:
        return build(labeled=True, labels=labels, labels_column=data.labels_column), what
    except ValueError:
        return build(labeled=False), what


def _limits(settings: PretrainSettings) -> ReadLimits:
    return ReadLimits(settings.data.max_pixels, settings.data.read_timeout)


def _sheet(positions: Sequence[int], runs: Sequence[Run], seed: int) -> Sheet:
    """A few training images with their views; runs with the same views and the same seed share a column."""
    columns: dict[str, list[int]] = {}
    firsts: dict[str, PretrainSettings] = {}
    for position in positions:
        settings = runs[position].pretraining
        assert settings is not None
        key = f"{settings.seed} {settings.views.model_dump_json()}"
        columns.setdefault(key, []).append(position)
        firsts.setdefault(key, settings)
    crops = [(build_multi_crop(settings.views), settings.seed) for settings in firsts.values()]
    first = next(iter(firsts.values()))
    source = build_training_source(first.data, labeled=False)
    bad: list[BadImage] = []
    readable = islice(readable_images(source, seed=seed, bad=bad, limits=_limits(first)), _SHOWN_IMAGES)
    images = [shown_image(source.name(index), index, image, crops) for index, image in readable]
    return Sheet(" ".join(first.data.train), list(columns.values()), images)
