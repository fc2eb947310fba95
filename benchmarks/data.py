"""One set as a folder, an H5 file and tar shards: time until the first image, and random reads.

The folder is made from your images, each written again and again under new names, in ``--work``
(which needs about 8 KiB an image for small ones and is not removed). Opening is timed in new processes, as a run does
it; with ``--cold`` (as root, Linux) the system's file cache is dropped before each, as after a
restart. Random reads follow one random order; the three kinds take turns on the same images in
every round, so that a busy machine slows them alike. Medians over rounds.

    python benchmarks/data.py --images FOLDER --work FOLDER [--num-images 100000] [--rounds 5] [--cold]
"""

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import h5py
import numpy as np

from sslight.data import FolderSource, Source, available_cores, build_source, pack

CLASSES = 1000


def make_folder(images: Source, root: Path, number: int) -> None:
    """``number`` files in 1000 class folders, spread so that a folder's files are not written one after the other."""
    if root.exists():
        return
    partial = root.with_name(f"{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for folder in range(CLASSES):
        (partial / f"n{folder:08d}").mkdir(parents=True)
    for index in range(number):
        path = partial / f"n{index % CLASSES:08d}" / f"n{index % CLASSES:08d}_{index // CLASSES}.JPEG"
        path.write_bytes(images.read(index % len(images)))
    partial.rename(root)


def open_once(path: Path, *, cache: Path, cold: bool) -> float:
    """Seconds that a new process needs to open the set with labels and to read one image."""
    if cold:
        drop_file_cache()
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as process:
        return process.submit(_open, path, cache).result()


def _open(path: Path, cache: Path) -> float:
    os.environ["XDG_CACHE_HOME"] = str(cache)
    start = time.perf_counter()
    source = build_source([str(path)], labeled=True)
    source.read(len(source) // 2)
    return time.perf_counter() - start


def drop_file_cache() -> None:
    """Make the next read come from the disk. Needs root."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def opening_times(paths: dict[str, Path], work: Path, *, rounds: int, cold: bool) -> dict[str, float]:
    """Median seconds of the first opening (nothing remembered) and of a later one, for each kind."""
    times: dict[str, list[float]] = {}
    for number in range(rounds):
        for name, path in paths.items():
            cache = work / f"cache-{name}-{number}"
            shutil.rmtree(cache, ignore_errors=True)
            times.setdefault(f"{name}, first time", []).append(open_once(path, cache=cache, cold=cold))
            times.setdefault(f"{name}, later", []).append(open_once(path, cache=cache, cold=cold))
            shutil.rmtree(cache, ignore_errors=True)
    return {name: statistics.median(values) for name, values in times.items()}


def random_reads(paths: dict[str, Path], *, reads: int, rounds: int, cold: bool) -> dict[str, float]:
    """Median images per second of one process, each round on other images."""
    sources = {name: build_source([str(path)], labeled=False) for name, path in paths.items()}
    rng = np.random.default_rng(0)
    speeds: dict[str, list[float]] = {}
    for _ in range(rounds):
        indices = rng.choice(len(next(iter(sources.values()))), size=reads).tolist()
        for name, source in sources.items():
            if cold:
                drop_file_cache()
            start = time.perf_counter()
            for index in indices:
                source.read(index)
            speeds.setdefault(name, []).append(reads / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in speeds.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print Markdown tables, or JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder of images to repeat")
    parser.add_argument("--work", type=Path, required=True, help="folder in which the sets are made, and kept")
    parser.add_argument("--num-images", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reads", type=int, default=3000)
    parser.add_argument("--cold", action="store_true", help="also with an empty file cache (needs root)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)

    options.work.mkdir(parents=True, exist_ok=True)
    base = options.work / f"set-{options.num_images}"
    paths = {"folder": base.with_name(f"{base.name}-folder"), "h5": base.with_name(f"{base.name}.h5")}
    paths["tar"] = base.with_name(f"{base.name}-tar")
    make_folder(build_source([options.images], labeled=False), paths["folder"], options.num_images)
    packing: dict[str, float] = {}
    for kind in ("h5", "tar"):
        if not paths[kind].exists():
            shutil.rmtree(f"{paths[kind]}.packing", ignore_errors=True)  # a rest would not be timed
            start = time.perf_counter()
            pack(FolderSource(paths["folder"], labeled=True), paths[kind], format=kind, workers=available_cores())
            packing[kind] = options.num_images / (time.perf_counter() - start)
    time.sleep(3)  # what was written a moment ago is not remembered
    result = {
        "num_images": options.num_images,
        "bytes": {name: sum(f.stat().st_size for f in files_of(path)) for name, path in paths.items()},
        "packing_images_per_second": packing,
        "machine": {"python": platform.python_version(), "h5py": h5py.__version__, "cores": available_cores()},
    }
    for cold in (False, True) if options.cold else (False,):
        state = "cold" if cold else "warm"
        result[f"opening_seconds_{state}"] = opening_times(paths, options.work, rounds=options.rounds, cold=cold)
        result[f"reads_per_second_{state}"] = random_reads(paths, reads=options.reads, rounds=options.rounds, cold=cold)
    if options.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{options.num_images:,} images, {options.rounds} interleaved rounds, medians")
    for name, values in result.items():
        if isinstance(values, dict):
            print(f"\n{name.replace('_', ' ')}\n\n| | |\n|---|---|")
            for row, value in values.items():
                print(f"| {row} | {value:,.3g} |" if isinstance(value, float) else f"| {row} | {value} |")


def files_of(path: Path) -> list[Path]:
    """The file, or all files below the folder."""
    return [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]


if __name__ == "__main__":
    main()
