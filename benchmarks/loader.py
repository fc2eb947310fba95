"""The loader against the same views made with PIL, by LightlySSL and by the original, on this machine.

Sides take turns on the same images in every round, so that a busy machine slows them alike; what is shown
are medians over rounds, and ratios of them. One thread in each process.

    python benchmarks/loader.py --images FOLDER [--original FOLDER] [--recipe NAME] [--rounds N]

``pip install lightly`` adds LightlySSL's DINO transform. ``--original`` names a copy of the original's
repository (saic-fi/SSLight), of which src/data/transforms.py is run.
"""

import argparse
import importlib.metadata
import importlib.util
import io
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image, ImageFilter
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import functional as TF

from sslight.config import ViewSettings, load_recipe
from sslight.data import Source, SyntheticSource, ViewLoader, build_source, decode
from sslight.views import build_multi_crop, normalize

Transform = Callable[[Image.Image], list[torch.Tensor]]
Side = Callable[[bytes], object]
DECODING, OURS = "decoding alone (torchvision)", "sslight"
BATCH_SIZE = 16


# ---- The sides: encoded bytes to all views of one image -----------------------------------------------------


def pil_transform(views: ViewSettings) -> Transform:
    """All views with PIL and torchvision, one after the other, normalised."""
    jitter = transforms.ColorJitter(*views.jitter)

    def photometric(image: Image.Image, blur_prob: float, solarize_prob: float) -> torch.Tensor:
        if torch.rand(()) < views.flip_prob:
            image = TF.hflip(image)
        if torch.rand(()) < views.jitter_prob:
            image = jitter(image)
        if torch.rand(()) < views.grayscale_prob:
            image = TF.rgb_to_grayscale(image, 3)
        if torch.rand(()) < blur_prob:
            low, high = views.blur_sigma
            image = image.filter(ImageFilter.GaussianBlur(low + (high - low) * float(torch.rand(()))))
        if torch.rand(()) < solarize_prob:
            image = TF.solarize(image, 128)
        tensor: torch.Tensor = TF.normalize(TF.to_tensor(image), views.mean, views.std)
        return tensor

    def crop(size: int, scale: tuple[float, float]) -> Callable[[Image.Image], Image.Image]:
        return transforms.RandomResizedCrop(  # type: ignore[no-any-return]
            size, scale, views.aspect_ratio, interpolation=transforms.InterpolationMode.BICUBIC
        )

    crops = [crop(views.global_size, views.global_scale)] * views.num_global
    crops += [crop(views.local_size, views.local_scale)] * views.num_local
    first, other, local = views.blur_prob
    blurs = [first] + [other] * (views.num_global - 1) + [local] * views.num_local
    solarises = [views.solarize_prob[0]] + [views.solarize_prob[1]] * (views.num_global - 1) + [0.0] * views.num_local
    return lambda image: [photometric(c(image), b, s) for c, b, s in zip(crops, blurs, solarises, strict=True)]


def lightly_transform(views: ViewSettings) -> Transform | None:
    """LightlySSL's DINO transform with the same sizes and strengths; None where it is not installed."""
    if importlib.util.find_spec("lightly") is None:
        return None
    module = importlib.import_module("lightly.transforms")
    brightness, contrast, saturation, hue = views.jitter
    transform: Transform = module.DINOTransform(
        global_crop_size=views.global_size,
        global_crop_scale=views.global_scale,
        local_crop_size=views.local_size,
        local_crop_scale=views.local_scale,
        n_local_views=views.num_local,
        hf_prob=views.flip_prob,
        cj_prob=views.jitter_prob,
        cj_strength=1.0,
        cj_bright=brightness,
        cj_contrast=contrast,
        cj_sat=saturation,
        cj_hue=hue,
        random_gray_scale=views.grayscale_prob,
        gaussian_blur=views.blur_prob,
        sigmas=views.blur_sigma,
        solarization_prob=views.solarize_prob[1],
        normalize={"mean": list(views.mean), "std": list(views.std)},
    )
    return transform


def original_transform(views: ViewSettings, folder: Path) -> Transform:
    """The transform in a copy of the original's repository."""
    file = folder / "src" / "data" / "transforms.py"
    spec = importlib.util.spec_from_file_location("original_transforms", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise SystemExit(f"--original {folder} has no src/data/transforms.py: give a copy of saic-fi/SSLight.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    multi_views = SimpleNamespace(
        RANDOM_HORIZONTAL_FLIP_PROB=[views.flip_prob],
        COLOR_JITTER_INTENSITY=views.jitter,
        COLOR_JITTER_PROB=[views.jitter_prob],
        GREYSCALE_PROB=[views.grayscale_prob],
        GLOBAL_CROP_SIZE=views.global_size,
        GLOBAL_CROPS_SCALE=views.global_scale,
        LOCAL_CROP_SIZE=views.local_size,
        LOCAL_CROPS_SCALE=views.local_scale,
        LOCAL_CROPS_NUMBER=views.num_local,
        GAUSSIAN_BLUR_PROB=views.blur_prob,
        SOLARIZATION_PROB=views.solarize_prob,
    )
    data = SimpleNamespace(MEAN=views.mean, STD=views.std)
    config = SimpleNamespace(STAGE="train", DATA=data, MULTI_VIEWS_TRANSFORMS=multi_views)
    transform: Transform = module.MultiCropsDataAugmentation(config)
    return transform


def others(views: ViewSettings, original: Path | None) -> dict[str, Transform]:
    """Every other implementation that is here."""
    found = {"PIL and torchvision": pil_transform(views)}
    lightly = lightly_transform(views)
    if lightly is not None:
        found["LightlySSL"] = lightly
    if original is not None:
        found["the original"] = original_transform(views, original)
    return found


def with_pil(transform: Transform) -> Side:
    """Decoding with PIL before a transform."""
    return lambda encoded: transform(Image.open(io.BytesIO(encoded)).convert("RGB"))


def ours(views: ViewSettings) -> Side:
    """What a worker does for an image, into memory that is there already."""
    multi_crop = build_multi_crop(views)
    global_views = torch.zeros(views.num_global, views.global_size, views.global_size, 3, dtype=torch.uint8).numpy()
    local_views = torch.zeros(views.num_local, views.local_size, views.local_size, 3, dtype=torch.uint8).numpy()
    numbers = iter(range(1 << 62))

    def side(encoded: bytes) -> None:
        image = decode(encoded)
        parameters = multi_crop.draw(image.shape[1], image.shape[2], (0, 0, next(numbers)))
        multi_crop.apply_into(image, parameters, global_views, local_views)

    return side


def bare_decoding(encoded: bytes) -> object:
    """The decoder alone, which nothing that decodes whole images can beat."""
    memory = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
    return torch.ops.image.decode_jpeg(memory, 3, False)


# ---- One process --------------------------------------------------------------------------------------------


def time_sides(sides: dict[str, Side], encoded: Sequence[bytes], rounds: int) -> dict[str, float]:
    """Median milliseconds of CPU time an image."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):  # the first warms up
        for name, side in sides.items():
            start = time.process_time()
            for content in encoded:
                side(content)
            if number:
                times[name].append(1000 * (time.process_time() - start) / len(encoded))
    return {name: statistics.median(values) for name, values in times.items()}


def costs(changes: dict[str, Any], views: ViewSettings, encoded: Sequence[bytes], rounds: int) -> dict[str, float]:
    """Decoding and ours with some settings changed."""
    sides = {DECODING: bare_decoding, OURS: ours(views.model_copy(update=changes))}
    return time_sides(sides, encoded, rounds)


def resized(encoded: bytes, longer: int) -> bytes:
    """The picture as a JPEG of another size."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    factor = longer / max(image.size)
    stream = io.BytesIO()
    image.resize((round(image.width * factor), round(image.height * factor))).save(stream, "JPEG", quality=90)
    return stream.getvalue()


# ---- Whole loaders ------------------------------------------------------------------------------------------


class Encoded(Source):
    """Bytes that are in memory, again and again."""

    labels = None
    classes = None

    def __init__(self, encoded: Sequence[bytes], length: int) -> None:
        self._encoded = encoded
        self._length = length

    def __len__(self) -> int:
        return self._length

    def read(self, index: int) -> bytes:
        """Picture ``index``, modulo their number."""
        return self._encoded[index % len(self._encoded)]

    def name(self, index: int) -> str:
        """Its number."""
        return str(index)

    def locate(self, index: int) -> str:
        """Its number."""
        return str(index)


class Transformed(Dataset[list[torch.Tensor]]):
    """The same for torch's DataLoader, with a transform of PIL images."""

    def __init__(self, source: Encoded, transform: Transform) -> None:
        self._source = source
        self._side = with_pil(transform)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        views = self._side(self._source.read(index))
        assert isinstance(views, list)
        return views


def our_epochs(source: Encoded, views: ViewSettings, workers: int) -> Iterator[float]:
    """Images a second of one epoch after the other, normalised in this process into the same memory."""
    loader = ViewLoader(source, build_multi_crop(views), batch_size=BATCH_SIZE, seed=0, workers=workers)
    kept: list[torch.Tensor | None] = [None, None]
    epoch = 0
    try:
        while True:
            start = time.perf_counter()
            for batch in loader.epoch(epoch):
                for kind, pixels in enumerate((batch.global_views, batch.local_views)):
                    if pixels is not None:
                        kept[kind] = normalize(pixels, views.mean, views.std, out=kept[kind])
            yield len(source) / (time.perf_counter() - start)
            epoch += 1
    finally:
        loader.close()


def other_epochs(source: Encoded, transform: Transform, workers: int) -> Iterator[float]:
    """The same of torch's DataLoader, whose workers normalise."""
    loader = DataLoader(
        Transformed(source, transform), BATCH_SIZE, num_workers=workers, persistent_workers=True, shuffle=True
    )
    while True:
        start = time.perf_counter()
        for _ in loader:
            pass
        yield len(source) / (time.perf_counter() - start)


def time_loaders(
    encoded: Sequence[bytes], views: ViewSettings, transforms_: dict[str, Transform], workers: int, rounds: int
) -> dict[str, float]:
    """Median images a second of each side."""
    # As many images as take each side about as long.
    few, many = Encoded(encoded, 5 * BATCH_SIZE), Encoded(encoded, 40 * BATCH_SIZE)
    epochs = {OURS: our_epochs(many, views, workers)}
    epochs |= {name: other_epochs(few, transform, workers) for name, transform in transforms_.items()}
    rates: dict[str, list[float]] = {name: [] for name in epochs}
    for number in range(rounds + 1):  # in the first, workers start
        for name, running in epochs.items():
            rate = next(running)
            if number:
                rates[name].append(rate)
    return {name: statistics.median(values) for name, values in rates.items()}


# ---- The report ---------------------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """What the numbers were measured on."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = {}
    for package in ("torch", "torchvision", "numba", "pillow", "lightly"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    processor = models[0] if models else platform.processor()
    return {"date": str(date.today()), "processor": processor, "python": platform.python_version(), **versions}


def run(views: ViewSettings, encoded: Sequence[bytes], original: Path | None, rounds: int) -> dict[str, Any]:
    """Everything, as plain data."""
    transforms_ = others(views, original)
    sides: dict[str, Side] = {DECODING: bare_decoding, OURS: ours(views)}
    sides |= {name: with_pil(transform) for name, transform in transforms_.items()}
    return {
        "one process, CPU ms an image": time_sides(sides, encoded, rounds),
        "loader, normalised batches, images/s": {
            workers: time_loaders(encoded, views, transforms_, workers, rounds) for workers in (1, 2)
        },
        "cost of local views, CPU ms an image": {
            num_local: costs({"num_local": num_local}, views, encoded, rounds) for num_local in (0, 2, 4, 6, 8, 10)
        },
        "cost by longer side of the image in px, CPU ms an image": {
            longer: costs({}, views, [resized(content, longer) for content in encoded], rounds)
            for longer in (256, 384, 500, 768, 1024)
        },
    }


def print_tables(results: dict[str, Any]) -> None:
    """Markdown."""
    single, loaders, *tables = results.items()
    title, medians = single
    print(
        f"\n## {title[0].upper()}{title[1:]}\n\n| | ms | × sslight's time | share of bare decoding |\n|---|---|---|---|"
    )
    for name, value in medians.items():
        print(f"| {name} | {value:.2f} | {value / medians[OURS]:.2f} | {100 * medians[DECODING] / value:.0f} % |")
    title, by_workers = loaders
    print(f"\n## {title[0].upper()}{title[1:]}\n\n| | 1 worker | sslight is faster | 2 workers | sslight is faster |")
    print("|---|---|---|---|---|")
    for name in by_workers[1]:
        cells = [f"{rates[name]:.0f} | {rates[OURS] / rates[name]:.2f} ×" for rates in by_workers.values()]
        print(f"| {name} | {' | '.join(cells)} |")
    for title, rows in tables:
        print(f"\n## {title[0].upper()}{title[1:]}\n")
        print("| | decoding | sslight | share of bare decoding |\n|---|---|---|---|")
        for key, values in rows.items():
            share = 100 * values[DECODING] / values[OURS]
            print(f"| {key} | {values[DECODING]:.2f} | {values[OURS]:.2f} | {share:.0f} % |")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print Markdown tables, or JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="folder or H5 file of JPEGs; without it, drawn ones of 448 px")
    parser.add_argument("--original", type=Path, help="a copy of the original's repository")
    parser.add_argument("--recipe", default="dino_cnn_sslight")
    parser.add_argument("--num-images", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)

    torch.set_num_threads(1)
    views = load_recipe(options.recipe).views
    if options.images:
        source = build_source([options.images], labeled=False)
    else:
        source = SyntheticSource(options.num_images, size=448, labeled=False)
    encoded = [source.read(index) for index in range(min(options.num_images, len(source)))]
    facts = machine() | {"recipe": options.recipe, "images": str(len(encoded)), "rounds": str(options.rounds)}
    results = run(views, encoded, options.original, options.rounds)
    if options.json:
        print(json.dumps(facts | results))
        return
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    if facts["lightly"] == "not installed":
        print("\nLightlySSL is left out: it is not installed (pip install lightly).")
    print_tables(results)


if __name__ == "__main__":
    main()
