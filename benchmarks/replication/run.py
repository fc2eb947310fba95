"""SSLight against its baseline on small images, with as many epochs and seeds as a time budget allows.

    python benchmarks/replication/run.py TRAIN VAL --output FOLDER --minutes 25

TRAIN and VAL are folders of class folders (Tiny ImageNet-50). Without a GPU the matrix is the reduced one, on a part of
the images. What is run, in this order; each finished run is kept, so that the same command goes on where it stopped:

1. *Speed*: a short run of each method and backbone; from it the number of epochs and seeds that fit (``plan.json``).
2. *Selection*: the learning rate of the baseline and that of SSLight, each by kNN on a tenth of TRAIN held out.
3. *The matrix*: trained on all of TRAIN (or the part), then measured on VAL, once.

``FOLDER/RESULTS.md`` and ``FOLDER/results.png`` are written after the last run (``--report`` writes them at any time).
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import asdict, dataclass, replace
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from matrix import (
    BASELINE,
    MATRICES,
    SELECTION_SEED,
    SSLIGHT,
    Cell,
    Cost,
    Length,
    Matrix,
    cell_settings,
    fit,
    recipe_of,
)
from processes import processes
from results import CellResult, read_accuracies, read_cell, write_report

import sslight
from sslight.backbones import bf16_is_fast_on_cpu, save_backbone
from sslight.config import load_recipe
from sslight.data import build_source, select_subset
from sslight.files import write_whole
from sslight.methods import build_method
from sslight.train import TrainingStopped

_HELD_OUT = 0.1
_CALIBRATION_STEPS = 60


@dataclass(frozen=True)
class Job:
    """A training run and its measurement on one set of labelled images."""

    cell: Cell
    folder: Path
    settings: dict[str, Any]
    """Of the run, without the images."""
    train: Path
    images: Path
    """List file of the training images."""
    val: Path
    what: str
    """For the screen."""


class Bench:
    """The folder of a replication, and how its runs are started."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.train: Path = arguments.train.resolve()
        self.val: Path = arguments.val.resolve()
        self.output: Path = arguments.output
        self.jobs: int = arguments.jobs
        self.started = time.perf_counter()
        self.on_gpu = torch.cuda.is_available()
        precision = "bf16" if self.on_gpu or bf16_is_fast_on_cpu() else "32"
        self.shared: dict[str, Any] = {"precision": precision, "logger": "none", "checkpoint.every_epochs": None}
        if not self.on_gpu:
            self.shared["workers"] = 1

    def split(self, share: float) -> tuple[Path, Path, Path, int]:
        """List files of the training images and of those that the selection trains on, and the held-out folder.

        Also the number of training images. A tenth of each class of TRAIN is held out, used or not.
        """
        source = build_source([str(self.train)], labeled=True)
        assert source.labels is not None
        used = [source.name(int(index)) for index in select_subset(source, share, seed=0)]
        lists = self.output / "split"
        held = lists / "held-out"
        lists.mkdir(parents=True, exist_ok=True)
        drawn = {source.name(int(index)) for index in select_subset(source, _HELD_OUT, seed=SELECTION_SEED)}
        for name in drawn:
            link = held / name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(self.train / name)
        every, selecting = lists / "train.txt", lists / "selection.txt"
        write_whole(every, "".join(f"{name}\n" for name in used))
        write_whole(selecting, "".join(f"{name}\n" for name in used if name not in drawn))
        return every, selecting, held, len(used)

    def run_all(self, title: str, jobs: Sequence[Job], pool: Executor) -> list[str]:
        """Run jobs, several at once, and print a line for each; the sentences of those that failed."""
        failed = []
        futures = {pool.submit(run_job, replace(job, settings=self.shared | job.settings)): job for job in jobs}
        for number, future in enumerate(as_completed(futures), 1):
            job = futures[future]
            try:
                line = future.result().summary()
            except (ValueError, TrainingStopped) as error:
                line = f"FAILED: {error}"
                failed.append(f"{job.what}: {error} ({job.folder / 'log.txt'} has it all)")
            minutes = (time.perf_counter() - self.started) / 60
            print(f"{title} {number}/{len(jobs)} · {job.what}: {line} · {minutes:.1f} min", flush=True)
        return failed


def run_job(job: Job) -> CellResult:
    """Train, evaluate by kNN and by the fast linear protocol; nothing that is already there is done again.

    What the program says goes to ``log.txt`` in the job's folder.

    Raises:
        ValueError: a setting or the data is wrong.
        TrainingStopped: the training failed.
    """
    _keep_what_is_said(job.folder)
    run = job.folder / "run"
    data = {"data.train": str(job.train), "data.subset": str(job.images)}
    if not (run / "backbone.safetensors").exists():
        same = {"backbone": job.cell.backbone, "seed": job.cell.seed, "output": str(run), "resume": "auto"}
        sslight.pretrain(recipe_of(job.cell), {**data, **same, **job.settings})
    _measure(job, run / "backbone.safetensors")
    return read_cell(job.folder)


def run_untrained(job: Job) -> tuple[float, float]:
    """Measure the weights that a run starts from: top-1 of kNN and of linear classification in percent."""
    _keep_what_is_said(job.folder)
    settings = load_recipe(recipe_of(job.cell), {"backbone": job.cell.backbone})
    torch.manual_seed(job.cell.seed)
    backbone = next(iter(build_method(settings).networks.values()))
    file = job.folder / "untrained.safetensors"
    views = settings.views
    save_backbone(
        backbone,
        file,
        name=settings.backbone,
        image_size=views.global_size,
        patch_size=settings.patch_size,
        mean=views.mean,
        std=views.std,
    )
    _measure(job, file)
    return read_accuracies(job.folder)


def _measure(job: Job, checkpoint: str | Path) -> None:
    data = {"data.train": str(job.train), "data.subset": str(job.images), "data.val": str(job.val)}
    size = load_recipe(recipe_of(job.cell)).views.global_size
    for protocol, more in (("knn", {}), ("linear", {"linear.mode": "fast"})):
        output = job.folder / protocol
        if not (output / "results.json").exists():
            places = {"output": str(output), "cache": str(job.folder / "features"), "image_size": size}
            sslight.evaluate_backbone(protocol, checkpoint, {**data, **places, **more})
    shutil.rmtree(job.folder / "features", ignore_errors=True)  # as large as many runs together


def _keep_what_is_said(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        for stream in (1, 2):  # for native libraries and loader processes too
            os.dup2(log.fileno(), stream)


def main() -> None:
    """Go through the stages."""
    arguments = _parse()
    if find_spec("matplotlib") is None:
        sys.exit("The report has a plot, for which matplotlib is needed: pip install matplotlib.")
    bench, plan_file = Bench(arguments), arguments.output / "plan.json"
    matrix = _matrix(arguments)
    asked = {"matrix": asdict(matrix), "share": arguments.share, "minutes": arguments.minutes, "seeds": arguments.seeds}
    asked = json.loads(json.dumps(asked))
    plan = json.loads(plan_file.read_text(encoding="utf-8")) if plan_file.exists() else None
    if plan is not None and plan["asked"] != asked:
        sys.exit(f"{plan_file} was made for other arguments ({plan['asked']}): give those, or another --output.")
    if arguments.report:
        write_report(arguments.output)
        return
    threads = max(1, len(os.sched_getaffinity(0)) // bench.jobs)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for the processes
    with processes(bench.jobs) as pool:
        failed = _go(bench, matrix, arguments, asked, plan, pool)
    if failed:
        print(f"{len(failed)} runs failed; the same command tries them again:", *failed, sep="\n", file=sys.stderr)
    write_report(arguments.output)
    sys.exit(1 if failed else 0)


def _go(
    bench: Bench,
    matrix: Matrix,
    arguments: argparse.Namespace,
    asked: dict[str, Any],
    plan: dict[str, Any] | None,
    pool: Executor,
) -> list[str]:
    """The three stages; the sentences of the runs that failed."""
    every, selecting, held, images = bench.split(arguments.share)
    if plan is None:
        costs = _costs(bench, matrix, selecting, held, pool)
        left = 60 * arguments.minutes - (time.perf_counter() - bench.started)
        try:
            length = fit(matrix, costs, images=images, seeds=arguments.seeds, seconds=left, jobs=bench.jobs)
        except ValueError as error:
            sys.exit(str(error))
        plan = {
            "asked": asked,
            "length": asdict(length),
            "images": images,
            "jobs": bench.jobs,
            "precision": bench.shared["precision"],
            "torch": torch.__version__,
            "date": date.today().isoformat(),
            "device": torch.cuda.get_device_name() if bench.on_gpu else _processor(),
            "costs": {f"{method} {backbone}": asdict(cost) for (method, backbone), cost in costs.items()},
        }
        write_whole(bench.output / "plan.json", json.dumps(plan, indent=2))
    length = Length(**plan["length"])
    print(
        f"{images:,} images, {length.epochs} epochs ({length.selection_epochs} in the selection), "
        f"{length.seeds} seeds: about {length.seconds / 60:.0f} minutes for all of it",
        flush=True,
    )
    failed = bench.run_all("selection", list(_selection_jobs(bench, matrix, length, selecting, held)), pool)
    rates = _chosen_rates(bench, matrix)
    write_whole(bench.output / "selection.json", json.dumps(rates, indent=2))
    if len(rates) < 2 * len(matrix.methods) * len(matrix.backbones):  # a baseline or an SSLight without any rate
        return failed
    failed += bench.run_all("matrix", list(_matrix_jobs(bench, matrix, length, rates, every, images)), pool)
    for backbone in matrix.backbones:
        cell = Cell(next(iter(matrix.methods)), backbone, BASELINE, 0)
        job = Job(
            cell, bench.output / "untrained" / backbone, {}, bench.train, every, bench.val, f"untrained {backbone}"
        )
        knn, linear = pool.submit(run_untrained, job).result()
        print(f"{job.what}: kNN {knn:.1f} %, linear {linear:.1f} %", flush=True)
    return failed


def _parse() -> argparse.Namespace:
    on_gpu = torch.cuda.is_available()
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="folder of class folders")
    parser.add_argument("val", type=Path, help="folder of class folders, used once")
    parser.add_argument("--output", type=Path, required=True, help="folder of all runs and of the report")
    parser.add_argument("--minutes", type=float, default=25.0, help="time for everything (default: 25)")
    parser.add_argument("--matrix", choices=sorted(MATRICES), default="gpu" if on_gpu else "cpu")
    parser.add_argument("--methods", nargs="+", help="only these of the matrix")
    parser.add_argument("--backbones", nargs="+", help="these instead of the matrix's")
    parser.add_argument("--seeds", type=int, default=3, help="at least so many (default: 3)")
    parser.add_argument("--share", type=float, default=1.0 if on_gpu else 0.4, help="part of TRAIN, 0-1")
    parser.add_argument("--jobs", type=int, default=1 if on_gpu else cores, help="runs at the same time")
    parser.add_argument("--report", action="store_true", help="only write the report of what is there")
    return parser.parse_args()


def _matrix(arguments: argparse.Namespace) -> Matrix:
    matrix = MATRICES[arguments.matrix]
    methods = {name: list(matrix.methods[name]) for name in arguments.methods or matrix.methods}
    return Matrix(methods, arguments.backbones or list(matrix.backbones))


def _costs(bench: Bench, matrix: Matrix, selecting: Path, held: Path, pool: Executor) -> dict[tuple[str, str], Cost]:
    """Each method and backbone in a short run, as many at once as later, for its speed and its fixed costs."""
    jobs = []
    for backbone in matrix.backbones:
        for method in matrix.methods:
            cell = Cell(method, backbone, SSLIGHT, SELECTION_SEED)
            jobs.append(
                Job(
                    cell,
                    bench.output / "speed" / f"{method}-{backbone}",
                    {"steps": _CALIBRATION_STEPS},
                    bench.train,
                    selecting,
                    held,
                    f"{method} {backbone}",
                )
            )

    jobs = [replace(job, settings=bench.shared | job.settings) for job in jobs]
    list(pool.map(_warm, range(bench.jobs)))
    return dict(pool.map(_cost, jobs))


def _warm(_: int) -> None:
    """Let every process start and import before the first is timed."""
    time.sleep(3)


def _cost(job: Job) -> tuple[tuple[str, str], Cost]:
    shutil.rmtree(job.folder, ignore_errors=True)  # a part of an earlier attempt would seem fast
    started = time.perf_counter()
    cell = run_job(job)
    fixed = time.perf_counter() - started - cell.minutes * 60
    return (job.cell.method, job.cell.backbone), Cost(max(0.0, fixed), cell.images_per_second)


def _selection_jobs(bench: Bench, matrix: Matrix, length: Length, selecting: Path, held: Path) -> Iterable[Job]:
    images = len(selecting.read_text(encoding="utf-8").splitlines())
    for cell, factor in matrix.selection():
        recipe = load_recipe(recipe_of(cell))
        steps = max(1, images // recipe.batch_size) * length.selection_epochs
        yield Job(
            cell,
            bench.output / "selection" / f"{cell.name}-{factor:g}",
            {"steps": steps, "lr": factor * recipe.lr},
            bench.train,
            selecting,
            held,
            f"{cell.method} {cell.backbone} {cell.variant} lr={factor * recipe.lr:g}",
        )


def _chosen_rates(bench: Bench, matrix: Matrix) -> dict[str, dict[str, Any]]:
    """For each method, backbone and recipe: the kNN accuracy of each rate on the held-out images, and the best rate."""
    tried: dict[str, dict[float, float]] = {}
    for cell, factor in matrix.selection():
        folder = bench.output / "selection" / f"{cell.name}-{factor:g}"
        if (folder / "knn" / "results.json").exists():
            key = f"{cell.method} {cell.backbone} {cell.variant}"
            tried.setdefault(key, {})[factor * load_recipe(recipe_of(cell)).lr] = read_cell(folder).knn
    best: Callable[[dict[float, float]], float] = lambda found: max(found, key=lambda rate: found[rate])  # noqa: E731
    return {key: {"lr": best(found), "knn": found} for key, found in tried.items()}


def _matrix_jobs(
    bench: Bench, matrix: Matrix, length: Length, rates: dict[str, dict[str, Any]], every: Path, images: int
) -> Iterable[Job]:
    for cell in matrix.cells(length.seeds):
        recipe = load_recipe(recipe_of(cell))
        side = SSLIGHT if cell.variant == SSLIGHT else "baseline"
        settings = cell_settings(cell, epochs=length.epochs, steps_per_epoch=images // recipe.batch_size)
        yield Job(
            cell,
            bench.output / "matrix" / cell.name,
            {"lr": rates[f"{cell.method} {cell.backbone} {side}"]["lr"], **settings},
            bench.train,
            every,
            bench.val,
            f"{cell.method} {cell.backbone} {cell.variant} seed {cell.seed}",
        )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else "CPU"


if __name__ == "__main__":
    main()
