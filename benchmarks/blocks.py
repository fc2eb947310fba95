"""Shards in a store, one request an image (data.order=global) or shard by shard (data.order=blocks).

A server on this machine answers every request after a delay. The two orders take turns, each time with an empty cache
and new worker processes, so that a busy machine slows them alike; shown are medians over rounds, and of the ratios.
Images are decoded and cut into two small views, so that reading is what is measured.

Then, computed and not measured: how well an order mixes shards, and how many of them each of several machines needs.

    python benchmarks/blocks.py --images FOLDER [--work FOLDER] [--delay 30] [--workers 4] [--rounds 3] [--seconds 15]
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from sslight.data import Blocks, SubsetSource, ViewLoader, available_cores, build_source, pack
from sslight.data.loading.orders import BlockOrder, GlobalOrder, Order
from sslight.views import MultiCrop

BATCH_SIZE = 32
CROPS = MultiCrop(num_global=2, num_local=0, global_size=32, local_size=8)


# ---- The store ----------------------------------------------------------------------------------------------


def serve(folder: Path, delay: float, told: Connection) -> None:
    """Answer requests of whole files and parts of files, each after ``delay`` seconds."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_HEAD(self) -> None:
            self.answer(with_content=False)

        def do_GET(self) -> None:
            self.answer(with_content=True)

        def answer(self, *, with_content: bool) -> None:
            time.sleep(delay)
            path = folder / self.path.lstrip("/")
            if not path.is_file():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            size = path.stat().st_size
            first, last = 0, size - 1
            if asked := self.headers.get("Range"):
                start, _, end = asked.removeprefix("bytes=").partition("-")
                first, last = int(start), min(int(end or last), last)
            self.send_response(206 if asked else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
            self.send_header("Content-Length", str(last + 1 - first))
            if asked:
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.end_headers()
            if with_content:
                with path.open("rb") as file:
                    self.wfile.write(os.pread(file.fileno(), last + 1 - first, first))

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # readers leave in the middle
        told.send(server.server_address[1])
        server.serve_forever()


@contextmanager
def store(folder: Path, delay: float) -> Iterator[str]:
    """The address of a running store."""
    heard, told = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=serve, args=(folder, delay, told), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{heard.recv()}"
    finally:
        process.terminate()
        process.join()


# ---- Speed --------------------------------------------------------------------------------------------------


def speed(pattern: str, *, window: int | None, workers: int, seconds: float) -> tuple[float, float]:
    """Images per second from the first batch on, and in the second half of the time."""
    blocks = None if window is None else Blocks(window, 2**40)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        source = build_source([pattern], labeled=False, blocks=blocks)
        loader = ViewLoader(source, CROPS, batch_size=BATCH_SIZE, seed=0, workers=workers, window=window)
        with closing(loader):
            given, start = [], time.perf_counter()
            for _ in loader.epoch(0):
                given.append(time.perf_counter() - start)
                if given[-1] > seconds:
                    break
    later = [moment for moment in given if moment > given[-1] / 2]
    return len(given) * BATCH_SIZE / given[-1], (len(later) - 1) * BATCH_SIZE / (later[-1] - later[0])


# ---- Mixing -------------------------------------------------------------------------------------------------


def mixing(order: Order, ends: np.ndarray, batch_size: int) -> dict[str, float]:
    """How an epoch mixes the images of a shard.

    ``distance``: between two images of one shard in the order, mean, as a share of the epoch (1/3 in a permutation of
    all). ``neighbors``: share of the images whose next one is of the same shard, in batches whose own order is not
    counted: that any two of a batch are. ``shards_a_batch``: mean number of them.
    """
    shards = np.concatenate([np.searchsorted(ends, b, side="right") for b in order.steps(0, batch_size, 0)])
    places = np.argsort(shards, kind="stable")
    counts = np.bincount(shards, minlength=len(ends))
    distances = []
    for of_shard in np.split(places, np.cumsum(counts)[:-1]):
        rank = np.arange(len(of_shard))
        pairs = len(of_shard) * (len(of_shard) - 1) / 2
        distances.append(float((of_shard * (2 * rank - len(of_shard) + 1)).sum() / max(pairs, 1)))
    batches = np.split(shards, len(shards) // batch_size)
    in_batch = [np.bincount(batch) for batch in batches]
    return {
        "distance": float(np.mean(distances)) / len(shards),
        "neighbors": float(np.mean([(n * (n - 1)).sum() / batch_size / (batch_size - 1) for n in in_batch])),
        "shards_a_batch": float(np.mean([np.count_nonzero(n) for n in in_batch])),
    }


def share_of_shards(order: BlockOrder, ends: np.ndarray, batch_size: int, machines: int) -> float:
    """Mean share of the shards of the set that each of several machines needs in an epoch."""
    needed = np.zeros((machines, len(ends)), dtype=bool)
    for batch in order.steps(0, batch_size, 0):
        for machine, part in enumerate(np.array_split(batch, machines)):
            needed[machine, np.searchsorted(ends, part, side="right")] = True
    return float(needed.mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print Markdown tables, or JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder of images to repeat")
    parser.add_argument("--work", type=Path, help="folder in which the shards are made, and kept")
    parser.add_argument("--num-images", type=int, default=20_000)
    parser.add_argument("--shard-images", type=int, default=1000)
    parser.add_argument("--window", type=int, default=4)
    parser.add_argument("--delay", type=float, default=30, help="milliseconds before each answer")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--shards", type=int, default=530, help="for the mixing: as ImageNet-1k has")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        shards = work / f"blocks-{options.num_images}-{options.shard_images}"
        if not shards.exists():
            images = build_source([options.images], labeled=False)
            repeated = _Repeated(images, np.arange(options.num_images) % len(images))
            pack(repeated, shards, format="tar", shard_images=options.shard_images, workers=available_cores())
        num_shards = len(list(shards.glob("*.tar")))
        megabytes = sum(path.stat().st_size for path in shards.glob("*.tar")) / num_shards / 1e6
        one_by_one, by_blocks = [], []
        measure = partial(speed, workers=options.workers, seconds=options.seconds)
        with store(shards, options.delay / 1000) as address:
            pattern = f"{address}/shard-{{000000..{num_shards - 1:06d}}}.tar"
            for _ in range(options.rounds):
                one_by_one.append(measure(pattern, window=None))
                by_blocks.append(measure(pattern, window=options.window))
    result: dict[str, Any] = {
        "images_per_second": {
            "global": statistics.median(whole for whole, _ in one_by_one),
            "blocks": statistics.median(whole for whole, _ in by_blocks),
            "blocks, second half": statistics.median(later for _, later in by_blocks),
            "ratio": statistics.median(b / a for (a, _), (b, _) in zip(one_by_one, by_blocks, strict=True)),
        },
        "mixing": {},
        "share_of_shards": {},
    }
    ends = np.arange(1, options.shards + 1) * 2418
    result["mixing"]["global"] = mixing(GlobalOrder(int(ends[-1]), 0), ends, 1024)
    for window in (4, 16, 64):
        order = BlockOrder(ends, window, 0)
        result["mixing"][f"blocks, window {window}"] = mixing(order, ends, 1024)
        result["share_of_shards"][f"window {window}"] = {
            machines: share_of_shards(order, ends, 1024, machines) for machines in (1, 2, 4, 8)
        }
    if options.json:
        print(json.dumps(result, indent=1))
        return
    print(
        f"{options.num_images:,} images in {num_shards} shards of {megabytes:.1f} MB, {options.delay:g} ms a request, "
        f"{options.workers} workers on {available_cores()} cores, {options.rounds} interleaved rounds of "
        f"{options.seconds:g} s, load {os.getloadavg()[0]:.1f}\n\n| order | images/s |\n|---|---|"
    )
    for name, value in result["images_per_second"].items():
        print(f"| {name} | {value:.3g} |")
    print("\n| order | distance | neighbors | shards a batch |\n|---|---|---|---|")
    for name, row in result["mixing"].items():
        print(f"| {name} | {row['distance']:.4f} | {row['neighbors']:.4f} | {row['shards_a_batch']:.1f} |")
    print("\n| share of the shards that each machine needs | 1 | 2 | 4 | 8 |\n|---|---|---|---|---|")
    for name, by_machines in result["share_of_shards"].items():
        print(f"| {name} | {' | '.join(f'{share:.2f}' for share in by_machines.values())} |")


class _Repeated(SubsetSource):
    """Images again and again under new names."""

    def name(self, index: int) -> str:
        return f"{index:07d}.jpg"


if __name__ == "__main__":
    main()
