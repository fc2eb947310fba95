"""What an untrained network's features say of images, from the standard and from the smooth start (`init`).

    python benchmarks/start.py TRAIN --backbones mobilenet_v2 resnet18

TRAIN is a folder of class folders of equally large images; of each class the first 50 are the bank and the next 20 the
queries. kNN (k = 20, percent) in eval mode, where batch norm does nothing yet, and in training mode, in batches of 250;
the last column is the mean cosine of two random crops' features, of 3/4 of the side, centred over 500 images, in
training mode. A mean and the single values of the seeds.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslight.backbones import build_backbone, initialize_smoothly
from sslight.config import ViewSettings
from sslight.data import build_source, decode
from sslight.evaluate import knn_classify

_BANK, _QUERIES, _BATCH = 50, 20, 250


def main() -> None:
    """Print a line for each network and start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("--backbones", nargs="+", default=["mobilenet_v2", "resnet18"])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    bank, bank_labels, queries, query_labels = _images(given.train)
    print("| network, start | kNN, eval mode | kNN, training mode | cosine of two crops |\n|---|---|---|---|")
    for name in given.backbones:
        for start in ("standard", "smooth"):
            rows = []
            for seed in range(given.seeds):
                torch.manual_seed(seed)
                backbone = build_backbone(name)
                if start == "smooth":
                    initialize_smoothly(backbone)
                accuracies = []
                for mode in (False, True):
                    backbone.train(mode)
                    scores = knn_classify(
                        _features(backbone, bank),
                        bank_labels,
                        _features(backbone, queries),
                        k=20,
                        temperature=0.07,
                        num_classes=int(bank_labels.max()) + 1,
                    )
                    accuracies.append(100 * (scores.argmax(1) == query_labels).double().mean().item())
                rows.append((*accuracies, _agreement(backbone, queries[:: max(1, len(queries) // 500)])))
            cells = [
                f"{sum(values) / len(values):.{digits}f} ({', '.join(f'{value:.{digits}f}' for value in values)})"
                for digits, values in zip((1, 1, 2), zip(*rows, strict=True), strict=True)
            ]
            print(f"| {name}, {start} | {' | '.join(cells)} |", flush=True)


def _images(folder: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bank and queries: uint8 ``[N, 3, H, W]`` with their labels."""
    source = build_source([str(folder)], labeled=True)
    assert source.labels is not None
    labels = torch.from_numpy(source.labels)
    of_classes = [(labels == label).nonzero().flatten() for label in range(len(source.classes or ()))]
    parts = []
    for first, last in ((0, _BANK), (_BANK, _BANK + _QUERIES)):
        rows = torch.cat([of_class[first:last] for of_class in of_classes])
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]  # classes mix in a batch
        parts += [torch.stack([decode(source.read(int(row))) for row in rows]), labels[rows]]
    bank, bank_labels, queries, query_labels = parts
    return bank, bank_labels, queries, query_labels


@torch.no_grad()
def _features(backbone: nn.Module, images: Tensor) -> Tensor:
    views = ViewSettings()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (views.mean, views.std))
    return torch.cat([backbone((batch / 255 - mean) / std) for batch in torch.split(images, _BATCH)])


def _agreement(backbone: nn.Module, images: Tensor) -> float:
    side = images.shape[-1] * 3 // 4
    generator = torch.Generator().manual_seed(0)
    features = []
    for _ in range(2):
        room = images.shape[-1] - side + 1
        corners = torch.randint(0, room, (len(images), 2), generator=generator).tolist()
        crops = [image[:, y : y + side, x : x + side] for image, (y, x) in zip(images, corners, strict=True)]
        of_crops = _features(backbone, torch.stack(crops))
        features.append(of_crops - of_crops.mean(0))
    first, second = features
    return F.cosine_similarity(first, second).mean().item()


if __name__ == "__main__":
    main()
