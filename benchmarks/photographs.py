"""Photographs of 12 megapixels: CPU time of decoding and of views, before and after, and with scaled decoding.

    python benchmarks/photographs.py --images FOLDER [--before CHECKOUT] [--recipe NAME] [--rounds N]

A picture is made of twelve real ones (1000 × 1000 px each) and stored as JPEG. ``--before`` names a checkout of an
earlier version of this repository. Each side is a process of its own with one thread; they take turns with the same
pictures in every round, and what is shown are medians over rounds, and ratios of them.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sslight.config import load_recipe
from sslight.data import build_source, decode
from sslight.views import build_multi_crop

HEIGHT, WIDTH, TILE = 3000, 4000, 1000


def photograph(tiles: Sequence[torch.Tensor], quality: int) -> bytes:
    """A JPEG of 4000 × 3000 px, as cameras store it."""
    whole = Image.new("RGB", (WIDTH, HEIGHT))
    for number, tile in enumerate(tiles):
        square = Image.fromarray(tile.permute(1, 2, 0).numpy()).resize((TILE, TILE), Image.Resampling.BICUBIC)
        whole.paste(square, (number % 4 * TILE, number // 4 * TILE))
    file = io.BytesIO()
    whole.save(file, "JPEG", quality=quality)
    return file.getvalue()


def answer(folder: Path, recipe: str, way: str) -> None:
    """Be one side: for every line on standard input, write the ms of decoding and of views, mean over the pictures."""
    torch.set_num_threads(1)
    if way != "before":  # as every loading worker does; in this process nothing else would
        from sslight.data.loading.shared_batches import keep_memory

        keep_memory()
    views = load_recipe(recipe).views
    multi_crop = build_multi_crop(views)
    smaller = partial(decode, shrink=multi_crop.most_shrinking) if way == "scaled" else decode
    out_globals = np.zeros((views.num_global, views.global_size, views.global_size, 3), np.uint8)
    out_locals = np.zeros((views.num_local, views.local_size, views.local_size, 3), np.uint8)
    pictures = [path.read_bytes() for path in sorted(folder.iterdir())]
    for number, _ in enumerate(sys.stdin):
        decoding = cutting = 0.0
        for picture in pictures:
            start = time.process_time()
            image = smaller(picture)
            decoded = time.process_time()
            parameters = multi_crop.draw(image.shape[1], image.shape[2], (0, 0, number))
            multi_crop.apply_into(image, parameters, out_globals, out_locals)
            decoding, cutting = decoding + decoded - start, cutting + time.process_time() - decoded
            del image
        print(json.dumps([1000 * seconds / len(pictures) for seconds in (decoding, cutting)]), flush=True)


def race(folder: Path, recipe: str, before: str | None, rounds: int) -> dict[str, tuple[float, float, float]]:
    """Median ms of decoding, views and both of each side."""
    here = str(Path(__file__).parents[1])
    sides = ({} if before is None else {"before": before}) | {"now": here, "scaled": here}
    processes = {}
    for name, checkout in sides.items():
        environment = dict(os.environ, PYTHONPATH=f"{checkout}/src", OMP_NUM_THREADS="1")
        command = [sys.executable, __file__, "--side", name, "--pictures", str(folder), "--recipe", recipe]
        processes[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
    times: dict[str, list[list[float]]] = {name: [] for name in sides}
    for number in range(rounds + 1):  # the first warms up
        for name, process in processes.items():
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            decoding, cutting = json.loads(process.stdout.readline())
            if number:
                times[name].append([decoding, cutting, decoding + cutting])
    for process in processes.values():
        process.communicate()
    return {name: tuple(map(statistics.median, zip(*rows, strict=True))) for name, rows in times.items()}


def differences(folder: Path, recipe: str) -> tuple[float, float]:
    """Mean difference of a view with scaled decoding in grey levels, without change of color, and that of the worst."""
    views = load_recipe(recipe).views
    no_color = {"jitter_prob": 0.0, "grayscale_prob": 0.0, "blur_prob": (0.0,) * 3, "solarize_prob": (0.0,) * 2}
    multi_crop = build_multi_crop(views.model_copy(update=no_color))
    found = []
    for path in sorted(folder.iterdir()):
        whole = decode(path.read_bytes())
        scaled = decode(path.read_bytes(), shrink=multi_crop.most_shrinking)
        for key in range(4):
            pairs = zip(multi_crop(whole, (key,)), multi_crop(scaled, (key,)), strict=True)
            found += [float((one.float() - other.float()).abs().mean()) for one, other in pairs]
    return statistics.mean(found), max(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="folder of real images")
    parser.add_argument("--before", help="checkout of an earlier version")
    parser.add_argument("--recipe", default="dino_cnn_sslight")
    parser.add_argument("--num-pictures", type=int, default=4)
    parser.add_argument("--quality", type=int, default=95)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--pictures", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.side is not None:
        answer(options.pictures, options.recipe, options.side)
        return
    source = build_source([options.images], labeled=False)
    chosen = np.random.default_rng(0).integers(len(source), size=(options.num_pictures, 12))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, indices in enumerate(chosen.tolist()):
            picture = photograph([decode(source.read(index)) for index in indices], options.quality)
            (folder / f"{number}.jpg").write_bytes(picture)
        size = statistics.mean(path.stat().st_size for path in folder.iterdir()) / 1e6
        print(f"{options.num_pictures} pictures of {WIDTH} × {HEIGHT} px, {size:.1f} MB, {options.rounds} rounds\n")
        medians = race(folder, options.recipe, options.before, options.rounds)
        base = next(iter(medians.values()))[2]
        print("| | decoding, ms | views, ms | both, ms | times as fast |\n|---|---|---|---|---|")
        for side, (decoding, cutting, both) in medians.items():
            print(f"| {side} | {decoding:.1f} | {cutting:.1f} | {both:.1f} | {base / both:.2f} |")
        mean, worst = differences(folder, options.recipe)
        print(
            f"\nViews with scaled decoding differ by {mean:.2f} grey levels in the mean, {worst:.2f} in the worst view."
        )


if __name__ == "__main__":
    main()
