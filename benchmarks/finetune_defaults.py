"""Whether other ways to fine-tune beat the defaults of ``sslight finetune``.

    python benchmarks/finetune_defaults.py TRAIN START --labels-per-class 20 --epochs 20 --output FOLDER

TRAIN is a folder of class folders, START whatever ``sslight finetune`` starts from (with ``--init random`` only its
network). Of each class some images are drawn once to judge on, and in every draw others that are labeled: no image is
both, and validation images have no part in it. Each way is trained on the same labels and with the same seed as the
default of its draw; all settings but its own are those of the program. What is measured is kept in FOLDER, so the same
command goes on, and the table is printed after each draw: top-1 in percent, and the difference to the default with its
95 % interval, paired over images and draws.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from timm.models import group_parameters
from torch import Tensor, nn
from torch.optim import Optimizer
from torchvision.transforms import InterpolationMode, v2

from sslight.api import finetune, finetune_run
from sslight.data import CropBatch, CropLoader
from sslight.evaluate.classifiers.metrics import hits
from sslight.evaluate.results import read_ranks
from sslight.files import write_whole
from sslight.finetuning.selection import SelectedClassifier
from sslight.finetuning.task import build_fine_tuning_task
from sslight.intervals import paired_runs
from sslight.train.task import Output, Task

DEFAULT, FORMER = "default", "lr=0.001 head_init=random freeze_norms=false"
_MAY_CHANGE = ("output", "draws", "ways")
_GRAY = [124, 116, 104]  # ImageNet's mean, where a transform leaves nothing


def layer_wise(module: SelectedClassifier, *given: Any, optimizer: Optimizer, decay: float, **more: Any) -> Task:
    """Rates that fall by ``decay`` from each stage to the one before it (Bao et al., ICLR 2022; timm's stages)."""
    backbone = module.classifier.backbone
    matcher: Any = backbone.group_matcher
    stages = group_parameters(backbone, matcher(coarse=True), reverse=True)
    depth = {parameter: max(stages.values()) + 1 - stages[name] for name, parameter in backbone.named_parameters()}
    optimizer.param_groups[:] = [
        {**group, "params": params, "lr_factor": group["lr_factor"] * decay**below}
        for group in optimizer.param_groups
        for below in range(max(depth.values()) + 1)
        if (params := [parameter for parameter in group["params"] if depth.get(parameter, 0) == below])
    ]
    return build_fine_tuning_task(module, *given, optimizer=optimizer, **more)


def head_first(
    module: nn.Module,
    loader: CropLoader,
    *given: Any,
    optimizer: Optimizer,
    set_rate: Callable[[int], None],
    epochs: int,
    share: float,
    factor: float = 1.0,
    **more: Any,
) -> Task:
    """The new layer alone for a share of the steps, at ``factor`` times the peak rate; then all, by a shorter schedule.

    The backbone's batch norms see the images in both parts.
    """
    total = epochs * loader.steps_per_epoch
    first = round(share * total)

    def set_rate_of_part(step: int) -> None:
        if step >= first:
            set_rate((step - first) * total // (total - first))
            return
        set_rate(total // 20)
        for group in optimizer.param_groups:
            group["lr"] *= factor if group["name"].startswith("head_") else 0.0

    return build_fine_tuning_task(
        module, loader, *given, optimizer=optimizer, set_rate=set_rate_of_part, epochs=epochs, **more
    )


def rand_augment(*given: Any, num_ops: int, magnitude: int, **more: Any) -> Task:
    """RandAugment after crop and flip (Cubuk et al., 2020)."""
    change = v2.RandAugment(num_ops, magnitude, interpolation=InterpolationMode.BILINEAR, fill=_GRAY)
    task = build_fine_tuning_task(*given, **more)

    def loss(module: nn.Module, batch: CropBatch, step: int) -> Output:
        return task.loss(module, replace(batch, images=torch.stack([change(image) for image in batch.images])), step)

    return replace(task, loss=loss)


def mixup(*given: Any, alpha: float, criterion: Callable[[Tensor, Tensor], Tensor], **more: Any) -> Task:
    """Each image mixed with another of its batch, one share for all (Zhang et al., ICLR 2018)."""
    share = 1.0

    def mixed_criterion(logits: Tensor, labels: Tensor) -> Tensor:
        return share * criterion(logits, labels) + (1 - share) * criterion(logits, labels.flip(0))

    task = build_fine_tuning_task(*given, criterion=mixed_criterion, **more)

    def loss(module: nn.Module, batch: CropBatch, step: int) -> Output:
        nonlocal share
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        mixed = batch.images.float().lerp(batch.images.flip(0).float(), 1 - share)
        return task.loss(module, replace(batch, images=mixed.round().to(torch.uint8)), step)

    return replace(task, loss=loss)


def smaller_last_batch(*given: Any, smallest_step: int, **more: Any) -> CropLoader:
    """What is left of an epoch after its last whole batch has a step of its own, from two images on."""
    return CropLoader(*given, smallest_step=min(2, smallest_step), **more)


@dataclass(frozen=True)
class Way:
    """How a classifier is fine-tuned: settings that differ, and what builds the task and the loader."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    build: Callable[..., Task] = build_fine_tuning_task
    loader: Callable[..., CropLoader] = CropLoader


WAYS = {
    DEFAULT: Way(),
    "label_smoothing=0": Way({"label_smoothing": 0}),
    "head_lr_factor=10": Way({"head_lr_factor": 10}),
    "lr=0.0003": Way({"lr": 0.0003}),
    "lr=0.003": Way({"lr": 0.003}),
    "a smaller last batch": Way(loader=smaller_last_batch),
    "layer-wise rates, 0.75 a stage": Way(build=partial(layer_wise, decay=0.75)),
    "head first, a fifth": Way(build=partial(head_first, share=0.2)),
    "head first, a tenth, at 10 lr": Way(build=partial(head_first, share=0.1, factor=10)),
    "head first, a fifth, at 10 lr": Way(build=partial(head_first, share=0.2, factor=10)),
    "lr=0.0001": Way({"lr": 0.0001}),
    "head_init=random": Way({"head_init": "random"}),
    "freeze_norms=false": Way({"freeze_norms": False}),
    "freeze_norms=true": Way({"freeze_norms": True}),
    "as for public weights": Way({"lr": 0.0003, "head_init": "regression", "freeze_norms": True}),
    FORMER: Way({"lr": 0.001, "head_init": "random", "freeze_norms": False}),
    "RandAugment 2, 5": Way(build=partial(rand_augment, num_ops=2, magnitude=5)),
    "RandAugment 2, 9": Way(build=partial(rand_augment, num_ops=2, magnitude=9)),
    "mixup 0.2": Way(build=partial(mixup, alpha=0.2)),
}


def main() -> None:
    """Measure what is missing in the folder, draw by draw, and print a table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("start")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--init", choices=["weights", "random"], default="weights")
    parser.add_argument("--classes", type=int, help="the first ones only; default: all")
    parser.add_argument("--labels-per-class", type=int, default=40)
    parser.add_argument("--judged-per-class", type=int, default=50)
    parser.add_argument("--order", type=int, default=0, help="by which the images to judge on are drawn")
    parser.add_argument("--epochs", type=int, help="default: that of the program")
    parser.add_argument("--image-size", type=int, help="default: that of the program")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument(
        "--ways", nargs="+", choices=list(WAYS), metavar="WAY", default=list(WAYS), help="; ".join(WAYS)
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_to(given.output, {name: str(value) for name, value in vars(given).items() if name not in _MAY_CHANGE})
    files = images_by_class(given.train, given.classes, given.judged_per_class + given.labels_per_class, given.order)
    judged = copied(files, given.output / "judged", slice(given.judged_per_class), draw=None)
    new = given.init == "random"  # whose norms have nothing to keep
    ways = [
        DEFAULT,
        *(way for way in given.ways if way != DEFAULT and not (new and WAYS[way].settings.get("freeze_norms"))),
    ]
    for draw in range(given.draws):
        rest = slice(given.judged_per_class, given.judged_per_class + given.labels_per_class)
        labeled = copied(files, given.output / f"draw-{draw}", rest, draw=draw)
        sets = {"data.train": labeled, "data.val": judged}
        how = {"epochs": given.epochs, "image_size": given.image_size, "init": given.init, "seed": draw}
        for way in ways:
            measure(given.output, way, draw, given.start, {**sets, **how})
        print(f"\n{table(given.output, ways, draw + 1)}\n", flush=True)


def keep_to(folder: Path, asked: Mapping[str, str]) -> None:
    """Refuse to mix what is asked for with results of something else."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "asked.json"
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) != asked:
        raise ValueError(f"{folder} holds results of other arguments ({file.name}): choose another --output.")
    write_whole(file, json.dumps(asked))


def images_by_class(train: Path, classes: int | None, needed: int, order: int) -> list[list[Path]]:
    """The files of each class, in an order that is drawn once."""
    rng, found = np.random.default_rng(order), []
    for folder in sorted(path for path in train.iterdir() if path.is_dir())[:classes]:
        files = sorted(folder.iterdir())
        if len(files) < needed:
            raise ValueError(f"{folder} has {len(files)} images, but {needed} are asked for: ask for fewer a class.")
        found.append([files[i] for i in rng.permutation(len(files))])
    return found


def copied(files: list[list[Path]], folder: Path, part: slice, *, draw: int | None) -> Path:
    """A folder of class folders with a part of each class's files, after those to judge on are shuffled for a draw."""
    for number, each in enumerate(files):
        if draw is not None:
            tail = each[part.start :]
            order = np.random.default_rng((draw, number)).permutation(len(tail))
            each = [*each[: part.start], *(tail[i] for i in order)]
        to = folder / each[0].parent.name
        to.mkdir(parents=True, exist_ok=True)
        for file in each[part]:
            shutil.copyfile(file, to / file.name)
    return folder


def measure(folder: Path, way: str, draw: int, start: str, how: Mapping[str, Any]) -> None:
    """Train and judge, unless it is done, and keep how right each image is."""
    file = result_file(folder, way, draw)
    if file.exists():
        return
    began, run, chosen = time.perf_counter(), folder / "run" / file.stem, WAYS[way]
    with mock.patch.multiple(finetune_run, build_fine_tuning_task=chosen.build, CropLoader=chosen.loader):
        done = finetune.finetune(start, {**how, **chosen.settings}, output=run, devices="cpu", workers=0, logger="none")
    ranks = read_ranks(run)
    assert done is not None
    assert ranks is not None
    right = hits(ranks[1]).tolist()
    seconds = round(time.perf_counter() - began, 1)
    row = {"way": way, "draw": draw, "top1": 100 * np.mean(right), "seconds": seconds, "right": right}
    row |= {"details": done.content["details"], "settings": done.content["settings"]}
    write_whole(file, json.dumps(row))
    shutil.rmtree(run)
    print(f"{way}, draw {draw}: {row['top1']:.2f} % in {seconds:.0f} s", flush=True)


def result_file(folder: Path, way: str, draw: int) -> Path:
    """Where the result of a draw is kept."""
    name = "".join(letter if letter.isalnum() or letter in ".=" else "-" for letter in way)
    return folder / f"{name}-{draw}.json"


def table(folder: Path, ways: list[str], draws: int) -> str:
    """Top-1 in percent of each way, and its difference to the default."""
    right = {
        way: torch.tensor(
            [json.loads(result_file(folder, way, draw).read_text(encoding="utf-8"))["right"] for draw in range(draws)]
        )
        for way in ways
    }
    lines = ["| | draws | mean | to the default |", "|---|---|---|---|"]
    for way, found in right.items():
        each = ", ".join(f"{100 * share:.1f}" for share in found.mean(1).tolist())
        change = ""
        if way != DEFAULT and draws > 1:
            differs = paired_runs((found - right[DEFAULT]).tolist())
            change = f"{differs.value:+.1f} [{differs.low:+.1f}, {differs.high:+.1f}]"
        lines.append(f"| {way} | {each} | {100 * found.mean():.1f} | {change} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
