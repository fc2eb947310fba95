"""CIFAR-10 as an outside yardstick: DINO, SwAV and MoCo-v2 with the settings that LightlySSL publishes.

Each method runs twice at the same length: with this program, and with the parts of the package lightly, which whoever
runs this installs beside it (`pip install lightly`; it is no dependency of sslight). Both sides start from the same
weights of the same ResNet-18 with the CIFAR stem, use their own loaders and transforms, and are measured by the same
code. Every cell is a process of its own and leaves a small file, so that a second start goes on where the first ended.

    python benchmarks/replication/cifar10.py TRAIN VAL --output FOLDER [--methods dino swav moco] [--images 5000]
        [--queries 2000] [--epochs 2] [--sides sslight lightly] [--batch-size 128] [--device cpu] [--seeds 0 1 2]

TRAIN and VAL are folders of class folders. The full length is that without --images and with --epochs 200.
"""

import argparse
import json
import platform
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any

import torch
from cifar10_lightly import Trained, moco_queue_size, part, train_lightly
from cifar10_table import to_markdown
from processes import processes
from timm.models import register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

import sslight
from sslight.backbones import build_backbone, load_backbone, save_backbone
from sslight.data import BadImage, Source, SubsetSource, available_cores, build_source, labels_in, select_subset
from sslight.evaluate import EvalTransform, knn_classify
from sslight.evaluate.features import feature_batches
from sslight.files import write_whole
from sslight.views import warm_up

BACKBONE = "resnet18_cifar"
METHODS, SIDES = ("dino", "swav", "moco"), ("sslight", "lightly")
KS, TEMPERATURE = (200, 20), 0.1  # lightly's benchmark takes k = 200
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TRANSFORM = EvalTransform(32, _MEAN, _STD, resize=32)


_SHARED: dict[str, Any] = {
    "backbone": BACKBONE,
    "lr": 0.12,
    "optim.min_lr": 0.0,
    "optim.warmup_epochs": 0,
    "views.num_local": 0,
    "views.global_size": 32,
    "views.flip_prob": 0.5,
    "views.jitter": [0.4, 0.4, 0.4, 0.1],
    "views.jitter_prob": 0.8,
    "views.grayscale_prob": 0.2,
    "views.blur_prob": [0.0, 0.0, 0.0],
    "views.solarize_prob": [0.0, 0.0],
    "views.mean": _MEAN,
    "views.std": _STD,
}
_OWN: dict[str, dict[str, Any]] = {
    "dino": {
        "optim.name": "sgd",
        "optim.momentum": 0.9,
        "optim.weight_decay": 5e-4,
        "views.global_scale": [0.4, 1.0],
        "views.jitter": [0.4, 0.4, 0.2, 0.1],
        "views.solarize_prob": [0.0, 0.2],
        "dino.student_temp": 0.1,
        "dino.teacher_temp": 0.04,
        "dino.warmup_teacher_temp_epochs": 0,
        "dino.teacher_momentum": 0.99,
        "dino.center_momentum": 0.9,
        "dino.freeze_last_layer_epochs": 0,
        "dino.head_layers": 2,
        "dino.head_hidden_dim": 2048,
        "dino.head_bottleneck_dim": 256,
        "dino.head_output_dim": 2048,
        "dino.head_batch_norm": True,
        "dino.norm_last_layer": True,
    },
    "swav": {
        "views.global_scale": [0.14, 1.0],
        "lr": 0.002,
        "optim.name": "adamw",
        "optim.weight_decay": 1e-6,
        "swav.num_prototypes": 512,
        "swav.temperature": 0.1,
        "swav.epsilon": 0.05,
        "swav.sinkhorn_iterations": 3,
        "swav.queue_size": 0,
        "swav.freeze_prototypes_epochs": 0,
        "swav.head_layers": 2,
        "swav.head_hidden_dim": 512,
        "swav.head_output_dim": 128,
        "swav.head_batch_norm": True,
    },
    "moco": {
        "optim.name": "sgd",
        "optim.momentum": 0.9,
        "optim.weight_decay": 5e-4,
        "views.global_scale": [0.08, 1.0],
        "moco.temperature": 0.1,
        "moco.key_momentum": 0.99,
        "moco.head_layers": 2,
        "moco.head_hidden_dim": 512,
        "moco.head_output_dim": 128,
        "moco.head_batch_norm": False,
    },
}


@register_model  # type: ignore[untyped-decorator]
def resnet18_cifar(pretrained: bool = False, num_classes: int = 0, **unused: Any) -> nn.Module:
    """ResNet-18 that starts with a 3×3 convolution of stride 1 and has no max-pooling; timm has none."""
    network = ResNet(BasicBlock, (2, 2, 2, 2), num_classes=num_classes, zero_init_last=False)
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    assert isinstance(network, nn.Module)
    return network


@dataclass(frozen=True)
class Setup:
    """What all cells of a folder share; None for all images."""

    train: str
    val: str
    images: int | None
    queries: int | None
    epochs: int
    batch_size: int
    device: str
    workers: int


@dataclass(frozen=True)
class Cell:
    """One run: a method on a side, or the untrained network, with a seed."""

    method: str
    side: str
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.method}_{self.side}_seed{self.seed}" if self.side else f"{self.method}_seed{self.seed}"


def cells(methods: Sequence[str], sides: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """The untrained networks first, then every method with its sides one after another."""
    trained = [Cell(method, side, seed) for seed in seeds for method in methods for side in sides]
    return [Cell("untrained", "", seed) for seed in seeds] + trained


def new_backbone(seed: int) -> nn.Module:
    """The network with the weights that ``sslight.pretrain`` starts from with that seed."""
    torch.manual_seed(seed)
    return build_backbone(BACKBONE, image_size=32)


def sslight_settings(method: str, batch_size: int) -> dict[str, Any]:
    """Settings of this program that come nearest to lightly's; rates are for 256 images here, for 128 there."""
    return _SHARED | _OWN[method] | ({"moco.queue_size": moco_queue_size(batch_size)} if method == "moco" else {})


def train_sslight(method: str, setup: Setup, image_list: Path | None, *, seed: int, output: Path) -> Trained:
    """Train with this program. Raises ValueError."""
    warm_up()  # a compilation that is not part of the training
    result = sslight.pretrain(
        f"{method}_cnn_baseline",
        {
            **sslight_settings(method, setup.batch_size),
            "data.train": [setup.train],
            "data.subset": None if image_list is None else str(image_list),
            "probe.knn": False,
            "checkpoint.every_epochs": None,
            "checkpoint.every_minutes": None,
            "checkpoint.keep_last": 1,
            "epochs": setup.epochs,
            "batch_size": setup.batch_size,
            "seed": seed,
            "output": output,
            "devices": "1" if setup.device == "gpu" else "cpu",
            "workers": setup.workers,
            "logger": "none",
        },
    )
    training = result.training
    return Trained(load_backbone(result.backbone), training.steps, training.seconds, training.metrics["loss"])


def features(backbone: nn.Module, source: Source, setup: Setup) -> torch.Tensor:
    """Features of the whole 32 px images, ``[N, 512]``; an unreadable image is an error (ValueError)."""
    bad: list[BadImage] = []
    device = "cuda" if setup.device == "gpu" else "cpu"
    backbone.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    rows = [
        values
        for _, values in feature_batches(
            backbone,
            source,
            _TRANSFORM,
            indices=torch.arange(len(source)).numpy(),
            batch_size=256,
            workers=setup.workers,
            device=device,
            bad=bad,
        )
    ]
    if bad:
        raise ValueError(f"{len(bad)} images cannot be read (first: {bad[0].name}): repair or remove them.")
    return torch.cat(rows)


def measure(backbone: nn.Module, bank: Source, queries: Source, setup: Setup) -> dict[str, float]:
    """KNN top-1 in percent by k; a k above the size of the bank is lowered to it."""
    assert bank.labels is not None
    assert bank.classes is not None
    stored, asked = features(backbone, bank, setup), features(backbone, queries, setup)
    labels = torch.from_numpy(bank.labels).to(stored.device)
    wanted = torch.from_numpy(labels_in(queries, bank.classes)).to(stored.device)
    accuracies = {}
    for k in sorted({min(k, len(bank)) for k in KS}, reverse=True):
        scores = knn_classify(stored, labels, asked, k=k, temperature=TEMPERATURE, num_classes=len(bank.classes))
        accuracies[str(k)] = 100.0 * float((scores.argmax(1) == wanted).float().mean())
    return accuracies


def part_of(path: str, images: int | None, name: str) -> Source:
    """A labelled set, or so many images of it, as many of each class. Raises ValueError."""
    source = build_source([path], labeled=True, setting=name)
    if images is None or images >= len(source):
        return source
    return SubsetSource(source, select_subset(source, images / len(source), 0, setting=name))


def run_cell(cell: Cell, setup: Setup, folder: Path) -> dict[str, Any]:
    """Train and measure one cell and write its file. Raises ValueError."""
    bank, queries = part_of(setup.train, setup.images, "TRAIN"), part_of(setup.val, setup.queries, "VAL")
    names = [bank.name(index) for index in range(len(bank))]
    run = folder / "runs" / cell.name
    shutil.rmtree(run, ignore_errors=True)  # a part of a run that was interrupted; its time would be lost
    trained = Trained(new_backbone(cell.seed), 0, 0.0, 0.0)
    before = processor_seconds()
    if cell.side == "sslight":
        image_list = None
        if setup.images is not None:
            image_list = folder / "images.txt"
            write_whole(image_list, "".join(f"{name}\n" for name in names))
        trained = train_sslight(cell.method, setup, image_list, seed=cell.seed, output=run)
    elif cell.side == "lightly":
        trained = train_lightly(
            cell.method,
            trained.backbone,
            Path(setup.train),
            names if setup.images is not None else None,
            seed=cell.seed,
            epochs=setup.epochs,
            batch_size=setup.batch_size,
            workers=setup.workers,
            device="cuda" if setup.device == "gpu" else "cpu",
        )
        run.mkdir(parents=True)
        about: dict[str, Any] = {"image_size": 32, "patch_size": None, "mean": _MEAN, "std": _STD}
        save_backbone(trained.backbone, run / "backbone.safetensors", name=BACKBONE, **about)
    on_processor = processor_seconds() - before
    seen = trained.steps * setup.batch_size
    result = {
        **asdict(cell),
        "setup": asdict(setup),
        "files": Path(names[0]).suffix,
        "bank": len(bank),
        "queries": len(queries),
        "knn": measure(trained.backbone, bank, queries, setup),
        "steps": trained.steps,
        "loss": trained.loss,
        "seconds": trained.seconds,
        "processor_seconds": on_processor,
        "images_per_second": seen / trained.seconds if trained.seconds else None,
        "hardware": hardware(setup.device),
        "versions": _versions(),
    }
    write_whole(folder / f"{cell.name}.json", json.dumps(result, indent=2) + "\n")
    return result


def processor_seconds() -> float:
    """Time on processors of this process and of those it has started and ended."""
    return sum(used.ru_utime + used.ru_stime for used in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


def hardware(device: str) -> str:
    """The GPU's name, or the processor's with the threads used."""
    if device == "gpu":
        return str(torch.cuda.get_device_name())
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' * (threads > 1)}"


def _versions() -> dict[str, str]:
    found = {}
    for package in ("sslight", "lightly", "torch", "timm"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def finished(folder: Path, setup: Setup) -> dict[str, dict[str, Any]]:
    """The results in a folder by the names of their cells.

    Raises:
        ValueError: one of them has another setup.
    """
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*_seed*.json"))}
    for name, result in results.items():
        other = [key for key, value in asdict(setup).items() if result["setup"][key] != value]
        if other:
            raise ValueError(
                f"--output {folder} holds {name}.json with {other[0]}={result['setup'][other[0]]}, not "
                f"{asdict(setup)[other[0]]}: give another folder, or the same values."
            )
    return results


def run_all(wanted: Sequence[Cell], setup: Setup, folder: Path) -> str:
    """Run the cells that have no file yet, write ``CIFAR10.md`` from all of them and return its text.

    Raises:
        ValueError: as the cells do, or the folder is of another setup.
    """
    if any(cell.side == "lightly" for cell in wanted):
        part("loss")  # if it is missing, say so now
    folder.mkdir(parents=True, exist_ok=True)
    results = finished(folder, setup)
    for cell in wanted:
        if cell.name not in results:
            print(f"{cell.name} ...", file=sys.stderr, flush=True)
            with processes(1) as pool:
                results[cell.name] = pool.submit(run_cell, cell, setup, folder).result()
    text = to_markdown(list(results.values()))
    write_whole(folder / "CIFAR10.md", text)
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--images", type=int, help="so many of TRAIN, as many of each class (default: all)")
    parser.add_argument("--queries", type=int, help="so many of VAL, as many of each class (default: all)")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="gpu" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=available_cores() - 1, help="loader processes of both sides")
    given = parser.parse_args(arguments)
    setup = Setup(
        str(given.train),
        str(given.val),
        given.images,
        given.queries,
        given.epochs,
        given.batch_size,
        given.device,
        given.workers,
    )
    try:
        print(run_all(cells(given.methods, given.sides, given.seeds), setup, given.output))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
