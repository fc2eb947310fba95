"""Decoders of JPEG side by side: milliseconds for an image on one core, and how far the pixels differ.

``python benchmarks/decoding.py --images IMAGENET_SAMPLES``; torchcodec, torchvision and Pillow as they are installed.
Best of interleaved rounds, in processor time, so that other work on the machine does not favor one.
"""

import argparse
import io
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image

from sslight.data import build_source, decode
from sslight.data.decoding.codecs import Decoder, torchcodec_decoders, torchvision_decoders


def with_pillow(encoded: bytes) -> torch.Tensor:
    """uint8 ``[3, H, W]`` RGB in channels-last memory; no EXIF, no checks."""
    with Image.open(io.BytesIO(encoded)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def alone(decoder: Decoder) -> Callable[[bytes], torch.Tensor]:
    """A compiled decoder without this program's checks."""

    def decoded(encoded: bytes) -> torch.Tensor:
        image = decoder(torch.frombuffer(bytearray(encoded), dtype=torch.uint8))
        return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)

    return decoded


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder of images; the JPEGs among the first are used")
    parser.add_argument("--num-images", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    source = build_source([options.images], labeled=False)
    files = [source.read(index) for index in range(min(options.num_images, len(source)))]
    files = [encoded for encoded in files if encoded.startswith(b"\xff\xd8")]
    ways: dict[str, Callable[[bytes], torch.Tensor]] = {"this program": decode, "Pillow": with_pillow}
    for name, decoders in {"torchcodec": torchcodec_decoders, "torchvision": torchvision_decoders}.items():
        try:
            ways[name] = alone(decoders()[0])
        except (ImportError, AttributeError):
            print(f"no {name}")
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(options.rounds):
        for name, way in ways.items():
            start = time.process_time()
            for encoded in files:
                way(encoded)
            seconds[name] = min(seconds[name], time.process_time() - start)
    print(f"{len(files)} JPEGs, mean {np.mean([len(file) for file in files]):,.0f} bytes; {options.rounds} rounds\n")
    print("| decoder | ms an image | images that differ from this program's | largest difference |\n|---|---|---|---|")
    for name, way in ways.items():
        differences = [int((way(file).short() - decode(file).short()).abs().max()) for file in files]
        speed = 1000 * seconds[name] / len(files)
        print(f"| {name} | {speed:.3f} | {np.count_nonzero(differences)} | {max(differences)} |")


if __name__ == "__main__":
    main()
