"""Which images to label: choices by features against a random choice, by the accuracy that the labels then give.

``python benchmarks/labels.py NAME TRAIN.npz VAL.npz``: features as ``sslight embed`` writes them, of images in class
folders. In each of five draws four fifths of the training images are the pool. Every way chooses 5, 10 and 30 images a
class on average from it without seeing a label; logistic regression (that of ``linear.mode=fast``) on them is measured
on all validation images, all features of length 1. A line for each fit goes to ``OUT`` (``labels.jsonl``), the table is
printed. With ``TAIL=20`` the pool is long-tailed: the first class keeps all of its images, the last one a twentieth.

``python benchmarks/labels.py NAME TRAIN.npz VAL.npz START TRAIN VAL WORK``, with the folders of these images: the same
for ``sslight finetune START`` at 64 px (``EPOCHS`` epochs of batches of 16, nothing held out) in place of regression,
random and coverage only. The runs go to WORK; what is finished there is not done again.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

import sslight
from sslight.data import build_source
from sslight.evaluate.classifiers.logistic import fit_logistic_regression
from sslight.finetuning.choice import choose_images
from sslight.intervals import paired_runs

OUT = Path(os.environ.get("OUT", "labels.jsonl"))
DRAWS, POOL, LABELS_A_CLASS = 5, 0.8, (5, 10, 30)
TAIL = float(os.environ.get("TAIL", "1"))
EPOCHS = int(os.environ.get("EPOCHS", "12"))
NEIGHBORS = 20  # of the typicality, as published


class Pool:
    """Images to choose from."""

    def __init__(self, features: Tensor) -> None:
        self.raw = features  # [N, D]
        self.features = F.normalize(features, dim=1)
        self.similarity = self.features @ self.features.T
        self._centers: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def centers(self, num: int, seed: int) -> tuple[Tensor, Tensor]:
        """k-means by ten rounds of Lloyd from a k-means++ start: centers ``[num, D]``, and each image's center."""
        if (num, seed) not in self._centers:
            self._centers[num, seed] = self._kmeans(num, seed)
        return self._centers[num, seed]

    def _kmeans(self, num: int, seed: int) -> tuple[Tensor, Tensor]:
        centers = self.features[plus_plus(self, num, seed)]
        for number in range(11):
            nearest = (self.features @ centers.T - centers.square().sum(1) / 2).argmax(1)
            if number == 10:
                break
            counts = torch.bincount(nearest, minlength=num)[:, None]
            sums = torch.zeros_like(centers).index_add_(0, nearest, self.features)
            centers = torch.where(counts > 0, sums / counts.clamp(min=1), centers)
        return centers, nearest


def random_choice(pool: Pool, num: int, seed: int) -> Tensor:
    """What to beat."""
    return permutation(len(pool.features), seed)[:num]


def typical(pool: Pool, num: int, seed: int) -> Tensor:
    """The most typical image of each cluster: the nearest to its neighbors there (Hacohen et al., ICML 2022)."""
    _, cluster = pool.centers(num, seed)
    chosen = []
    for number in range(num):
        rows = (cluster == number).nonzero()[:, 0]
        if len(rows):
            distances = (2 - 2 * pool.similarity[rows][:, rows]).clamp(min=0).sqrt()
            near = distances.topk(min(NEIGHBORS + 1, len(rows)), largest=False).values
            chosen.append(rows[near.mean(1).argmin()])
    return torch.stack(chosen)


def nearest_to_centers(pool: Pool, num: int, seed: int) -> Tensor:
    """The image nearest to each center of k-means."""
    centers, _ = pool.centers(num, seed)
    return torch.tensor(sorted({*(centers @ pool.features.T).argmax(1).tolist()}))


def plus_plus(pool: Pool, num: int, seed: int) -> Tensor:
    """k-means++ (Arthur & Vassilvitskii, 2007): each image with a chance that grows with its squared distance."""
    rng = np.random.default_rng(seed)
    chosen = [int(rng.integers(len(pool.features)))]
    nearest = pool.similarity[chosen[0]].double()
    while len(chosen) < num:
        weights = (1 - nearest).clamp(min=0).numpy()
        weights[chosen] = 0
        chosen.append(int(rng.choice(len(weights), p=weights / weights.sum())))
        nearest = torch.maximum(nearest, pool.similarity[chosen[-1]])
    return torch.tensor(chosen)


def k_center(pool: Pool, num: int, seed: int) -> Tensor:
    """The image farthest from all chosen ones (Sener & Savarese, ICLR 2018)."""
    chosen = [int(np.random.default_rng(seed).integers(len(pool.features)))]
    nearest = pool.similarity[chosen[0]]
    while len(chosen) < num:
        chosen.append(int(nearest.argmin()))
        nearest = torch.maximum(nearest, pool.similarity[chosen[-1]])
    return torch.tensor(chosen)


def coverage(pool: Pool, num: int, seed: int) -> Tensor:
    """What ``sslight select`` does."""
    return torch.from_numpy(choose_images(pool.raw, num).rows)


WAYS: dict[str, Callable[[Pool, int, int], Tensor]] = {
    "random": random_choice,
    "coverage (sslight select)": coverage,
    "typical of clusters (TypiClust)": typical,
    "nearest to the centers of k-means": nearest_to_centers,
    "k-means++": plus_plus,
    "k-center": k_center,
}


def permutation(length: int, seed: int) -> Tensor:
    """Of rows, for a seed."""
    return torch.from_numpy(np.random.default_rng(seed).permutation(length))


def main() -> None:
    """Measure, and print a table."""
    torch.set_num_threads(1)
    name, *files = sys.argv[1:]
    train, val, *folders = map(Path, files)
    fit = FineTuning(folders, names(train), names(val)) if folders else regression
    print(table(measure(name, *read(train), *read(val), fit, WAYS if fit is regression else FINE_TUNED)))


def names(path: Path) -> list[str]:
    """Of the images, below their folder."""
    with np.load(path) as file:
        found: list[str] = file["names"].tolist()
    return found


def read(path: Path) -> tuple[Tensor, Tensor]:
    """Features, and labels: positions of the class folders."""
    with np.load(path) as file:
        folders = [PurePosixPath(name).parent.name for name in file["names"].tolist()]
        features = torch.from_numpy(file["features"])
    return features, torch.from_numpy(np.unique(folders, return_inverse=True)[1])


class Few(NamedTuple):
    """The images that have a label."""

    key: str  # draw, labels a class and way
    rows: Tensor  # of the training images
    features: Tensor
    labels: Tensor
    num_classes: int
    seed: int


def regression(few: Few, val: Tensor, val_labels: Tensor) -> Tensor:
    """Whether logistic regression is right on each validation image."""
    ours = F.normalize(few.features, dim=1)
    fitted = fit_logistic_regression(ours, few.labels, num_classes=few.num_classes, seed=few.seed)
    return fitted.logits(F.normalize(val, dim=1)).argmax(1) == val_labels


class FineTuning:
    """``sslight finetune`` on the same labels. The images of a class that has no label count as wrong."""

    def __init__(self, folders: Sequence[Path], train_names: list[str], val_names: list[str]) -> None:
        self.start, self.train, self.val, self.work = folders
        self.train_names, self.val_names = train_names, val_names

    def __call__(self, few: Few, val: Tensor, val_labels: Tensor) -> Tensor:
        """Whether it is right on each validation image."""
        folder = self.work / few.key
        known = set(few.labels.tolist())
        asked = [row for row, label in enumerate(val_labels.tolist()) if label in known]
        link(self.train, [self.train_names[row] for row in few.rows.tolist()], folder / "train")
        link(self.val, [self.val_names[row] for row in asked], folder / "val")
        if not (folder / "run" / "results.json").exists():
            places = {"data.train": str(folder / "train"), "data.val": str(folder / "val")}
            fixed = {"output": str(folder / "run"), "seed": few.seed, "image_size": 64, "holdout": 0, "batch_size": 16}
            sslight.finetune(self.start, {**places, **fixed, "epochs": EPOCHS, "precision": "32", "resume": "auto"})
        ahead = load_file(folder / "run" / "ranks.safetensors")["ranks"].sum(1)  # of the right class, and level with it
        source = build_source([str(folder / "val")], labeled=True)
        right = {source.name(index): number == 0 for index, number in enumerate(ahead.tolist())}
        return torch.tensor([right.get(name, False) for name in self.val_names])


def link(images: Path, chosen: list[str], folder: Path) -> None:
    """A folder of these images alone."""
    for name in chosen:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.symlink_to((images / name).absolute())


Right = Mapping[tuple[str, int], Tensor]
Fit = Callable[[Few, Tensor, Tensor], Tensor]
Ways = Mapping[str, Callable[[Pool, int, int], Tensor]]
FINE_TUNED = {name: WAYS[name] for name in ("random", "coverage (sslight select)")}


def measure(
    name: str, features: Tensor, labels: Tensor, val: Tensor, val_labels: Tensor, fit: Fit, ways: Ways
) -> Right:
    """By way and labels a class: whether each validation image is right in each draw, ``[DRAWS, N]``."""
    num_classes = int(labels.max()) + 1
    right: dict[tuple[str, int], Tensor] = {}
    for draw in range(DRAWS):
        members = permutation(len(features), 1000 + draw)[: int(POOL * len(features))]
        if TAIL > 1:
            kept = TAIL ** (-labels[members] / (num_classes - 1))
            members = members[torch.from_numpy(np.random.default_rng(draw).random(len(members))) < kept]
        pool = Pool(features[members])
        for each in LABELS_A_CLASS:
            for way, choose in ways.items():
                start = time.perf_counter()
                rows = members[choose(pool, each * num_classes, draw)]
                seconds = time.perf_counter() - start
                key = f"{draw}-{each}-{way.partition(' ')[0]}"
                few = Few(key, rows, features[rows], labels[rows], num_classes, draw)
                is_right = fit(few, val, val_labels)
                right.setdefault((way, each), torch.zeros(DRAWS, len(val)))[draw] = is_right
                counts = torch.bincount(labels[rows], minlength=num_classes)
                top1, empty = 100 * float(is_right.float().mean()), int((counts == 0).sum())
                line = {"set": name, "draw": draw, "labels": each, "way": way, "top1": top1, "num": len(rows)}
                line |= {"empty": empty, "seconds": seconds}
                with OUT.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    return right


def table(right: Right) -> str:
    """Top-1 in percent, and the paired difference to random with its 95 % interval."""
    lines = [
        "| choice | " + " | ".join(f"{each} labels a class" for each in LABELS_A_CLASS) + " |",
        "|---|---|---|---|",
    ]
    for way in dict.fromkeys(way for way, _ in right):
        cells = []
        for each in LABELS_A_CLASS:
            cell = f"{100 * right[way, each].mean():.1f}"
            if way != "random":
                found = paired_runs((right[way, each] - right["random", each]).tolist())
                cell += f" ({found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}])"
            cells.append(cell)
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
