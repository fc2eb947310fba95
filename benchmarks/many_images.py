"""Sets of many images: seconds until they are open and memory an image, in several processes of a machine.

Folders in ``--work`` are real and empty, their files are what a replaced ``os.scandir`` says. Shards are few real ones
under many names (hard links), so that a billion images need little room: their names are equal but for the shard's.
Memory is the sum of the processes' proportional sizes (PSS: shared pages count once), less what they had before. The
processes start together, as those of torchrun do.

    python benchmarks/many_images.py --work /dev/shm/many [--files 10000000] [--shards 26000] [--shard-images 40000]
"""

import argparse
import io
import json
import multiprocessing
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import numpy as np
from PIL import Image

from sslight.data import Blocks, build_source, data_fingerprint
from sslight.data.loading.orders import BlockOrder, GlobalOrder
from sslight.data.sources.blocks import shard_ends
from sslight.data.sources.tar.index import scan, write_index

REAL_SHARDS = 4


class _File:
    """What ``os.scandir`` gives for a file."""

    def __init__(self, name: str) -> None:
        self.name = name

    def is_dir(self) -> bool:
        return False

    def is_symlink(self) -> bool:
        return False

    def is_file(self) -> bool:
        return True


def make_files(folder: Path, number: int, in_each: int) -> None:
    """Empty class folders, and an ``os.scandir`` that finds files called like ImageNet's in them."""
    for part in range(-(-number // in_each)):
        (folder / f"n{part:08d}").mkdir(parents=True, exist_ok=True)
    scandir = os.scandir

    @contextmanager
    def with_files(path: str) -> Iterator[Iterator[object]]:
        part = str(path).rstrip("/").rpartition("/")[2]
        if not str(path).startswith(f"{folder}/n"):
            with scandir(path) as found:
                yield found
        else:
            count = min(in_each, number - int(part[1:]) * in_each)
            yield (_File(f"{part}_{index:07d}.JPEG") for index in range(count))

    os.scandir = with_files  # type: ignore[assignment]


def make_shards(folder: Path, number: int, images: int) -> None:
    """Shards with their indexes and the list of them, as packing writes them."""
    folder.mkdir(parents=True)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    for real in range(min(REAL_SHARDS, number)):
        path = folder / f"shard-{real:06d}.tar"
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
            for image in range(images):
                member = tarfile.TarInfo(f"n{image % 1000:08d}/n{image % 1000:08d}_{image:07d}.jpg")
                member.size = len(file.getvalue())
                archive.addfile(member, io.BytesIO(file.getvalue()))
        write_index(path, scan(path))
    for link in range(REAL_SHARDS, number):
        for suffix in ("tar", "index"):
            (folder / f"shard-{link:06d}.{suffix}").hardlink_to(folder / f"shard-{link % REAL_SHARDS:06d}.{suffix}")
    shards = [
        {"url": path.name, "nsamples": images, "filesize": path.stat().st_size} for path in sorted(folder.glob("*.tar"))
    ]
    (folder / "index.json").write_text(json.dumps({"wids_version": 1, "shardlist": shards, "classes": None}))


def proportional_size(pid: int) -> int:
    """Bytes of a process, shared pages divided among those that share them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def together(work: Callable[[], object], processes: int) -> tuple[float, float, float]:
    """Seconds until the last has done ``work``, and bytes of all together: at the peak, and at the end."""
    context = multiprocessing.get_context("fork")
    ready, leave = context.Barrier(processes + 1), context.Event()
    done = context.Barrier(processes + 1)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        started = [context.Process(target=_do, args=(work, ready, done, leave)) for _ in range(processes)]
        for process in started:
            process.start()
        ready.wait()
        before = sum(proportional_size(process.pid or 0) for process in started)
        start, peak = time.perf_counter(), 0
        ready.wait()
        while done.n_waiting < processes and all(process.is_alive() for process in started):
            peak = max(peak, sum(proportional_size(process.pid or 0) for process in started))
            time.sleep(0.05)
        seconds = time.perf_counter() - start
        end = sum(proportional_size(process.pid or 0) for process in started)
        leave.set()
        done.wait()
        for process in started:
            process.join()
    return seconds, max(peak, end) - before, end - before


def _do(work: Callable[[], object], ready: Barrier, done: Barrier, leave: Event) -> None:
    ready.wait()
    ready.wait()
    kept = work()
    done.wait()
    leave.wait()
    del kept


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder in which the sets are made; it is removed")
    parser.add_argument("--files", type=int, default=10_000_000)
    parser.add_argument("--in-each", type=int, default=1300, help="files in a folder")
    parser.add_argument("--shards", type=int, default=26_000)
    parser.add_argument("--shard-images", type=int, default=40_000)
    parser.add_argument("--global-shards", type=int, default=20, help="so many of them in the order of all images")
    parser.add_argument("--processes", type=int, default=4)
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True)
    rows: list[tuple[str, int, tuple[float, float, float]]] = []
    try:
        if options.files:
            make_files(options.work / "files", options.files, options.in_each)
            time.sleep(3)  # what was written a moment ago is not remembered
            paths = [str(options.work / "files")]
            rows.append(
                (
                    "files, listed",
                    options.files,
                    together(lambda: build_source(paths, labeled=False), options.processes),
                )
            )
        if options.shards:
            make_shards(options.work / "shards", options.shards, options.shard_images)
            some = [f"{options.work}/shards/shard-{{000000..{options.global_shards - 1:06d}}}.tar"]
            all_of_them = [f"{options.work}/shards/shard-{{000000..{options.shards - 1:06d}}}.tar"]
            images = options.global_shards * options.shard_images
            rows.append(("tar, global: source", images, together(lambda: build_source(some, labeled=False), 1)))
            rows.append(("tar, global: and an epoch's order", images, together(lambda: _global(some), 1)))
            images = options.shards * options.shard_images
            rows.append(
                (
                    "tar, blocks: source, fingerprint and an epoch's first window",
                    images,
                    together(lambda: _blocks(all_of_them), options.processes),
                )
            )
    finally:
        shutil.rmtree(options.work)
    print(f"{options.processes} processes (global: 1), load {os.getloadavg()[0]:.1f}\n")
    print("| set | images | seconds | peak, bytes an image | at the end | peak, MB |\n|---|---|---|---|---|---|")
    for name, number, (seconds, peak, end) in rows:
        print(f"| {name} | {number:,} | {seconds:.1f} | {peak / number:.3g} | {end / number:.3g} | {peak / 1e6:,.0f} |")


def _global(paths: list[str]) -> object:
    source = build_source(paths, labeled=False)
    steps = GlobalOrder(len(source), 0).steps(0, 1024, 0)
    return source, steps, next(steps)


def _blocks(paths: list[str]) -> object:
    source = build_source(paths, labeled=False, blocks=Blocks(16, 0))
    data_fingerprint(source)
    steps = BlockOrder(shard_ends(source), 16, 0).steps(0, 1024, 0)
    first = next(steps)
    assert len(np.unique(first)) == 1024
    return source, steps, first, source.read(int(first[0]))


if __name__ == "__main__":
    main()
