"""Views of one image: this program against the same chain in torchvision with PIL, as the original computes it.

One process, one thread. The sides take turns on the same images in every round, so that a busy
machine slows them alike; medians over rounds, and ratios of these. Run on your own images:

    python benchmarks/views.py --images FOLDER [--recipe dino_cnn_sslight] [--rounds 7]
"""

import argparse
import io
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from PIL import Image, ImageFilter
from torchvision import transforms
from torchvision.transforms import functional as TF

from sslight.config import ViewSettings, load_recipe
from sslight.data import Source, SyntheticSource, build_source, decode
from sslight.views import build_multi_crop

Side = Callable[[bytes, int], object]


def pil_chain(views: ViewSettings) -> Side:
    """Decoding and all views with PIL and torchvision, one view after the other."""
    jitter = transforms.ColorJitter(*views.jitter)

    def photometric(image: Image.Image, blur_prob: float, solarise_prob: float) -> torch.Tensor:
        if torch.rand(()) < views.flip_prob:
            image = TF.hflip(image)
        if torch.rand(()) < views.jitter_prob:
            image = jitter(image)
        if torch.rand(()) < views.grey_prob:
            image = TF.rgb_to_grayscale(image, 3)
        if torch.rand(()) < blur_prob:
            low, high = views.blur_radius
            image = image.filter(ImageFilter.GaussianBlur(low + (high - low) * float(torch.rand(()))))
        if torch.rand(()) < solarise_prob:
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
    solarises = [views.solarise_prob[0]] + [views.solarise_prob[1]] * (views.num_global - 1) + [0.0] * views.num_local

    def side(encoded: bytes, index: int) -> object:
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
        return [photometric(c(image), b, s) for c, b, s in zip(crops, blurs, solarises, strict=True)]

    return side


def measure(source: Source, sides: dict[str, Side], *, images: int, rounds: int) -> dict[str, float]:
    """Median milliseconds an image of each side."""
    encoded = [source.read(index) for index in range(min(images, len(source)))]
    for side in sides.values():
        side(encoded[0], 0)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            for index, content in enumerate(encoded):
                side(content, index)
            times[name].append(1000 * (time.perf_counter() - start) / len(encoded))
    return {name: statistics.median(values) for name, values in times.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a Markdown table, or JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="folder or H5 file; without it, drawn JPEGs of 448 px")
    parser.add_argument("--recipe", default="dino_cnn_sslight")
    parser.add_argument("--num-images", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)

    torch.set_num_threads(1)
    views = load_recipe(options.recipe).views
    multi_crop = build_multi_crop(views)
    if options.images:
        source = build_source([options.images], labelled=False)
    else:
        source = SyntheticSource(options.num_images, size=448, labelled=False)
    sides: dict[str, Side] = {
        "decoding alone (torchvision)": lambda encoded, index: decode(encoded),
        "sslight": lambda encoded, index: multi_crop(decode(encoded), (0, 0, index)),
        "PIL and torchvision": pil_chain(views),
    }
    medians = measure(source, sides, images=options.num_images, rounds=options.rounds)
    ours = medians["sslight"]
    if options.json:
        print(json.dumps({"recipe": options.recipe, "machine": platform.processor(), "ms_per_image": medians}))
        return
    num_images = min(options.num_images, len(source))
    print(f"{options.recipe}, {num_images} images, {options.rounds} interleaved rounds, medians\n")
    print("| | ms an image | × sslight's time |\n|---|---|---|")
    for name, value in medians.items():
        print(f"| {name} | {value:.2f} | {value / ours:.2f} |")


if __name__ == "__main__":
    main()
