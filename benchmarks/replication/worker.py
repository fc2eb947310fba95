"""One run of a plan in a process of its own: train, measure, and leave `result.json` in the run's folder.

The queue starts it with the folder, in which `run.json` says what to do. SIGTERM ends it with a checkpoint; so does the
end of the queue. What is there already is not done again. The result is written anew after every measurement, so that
one of hours does not keep the others waiting.
"""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any

import numpy as np
import torch
from candidates import candidate
from networks import resnet18_cifar  # noqa: F401 - registers it
from page import read_result, records, write_result
from plan import Run
from torch import Tensor

import sslight
from sslight.backbones import (
    bf16_is_fast_on_cpu,
    load_backbone,
    load_backbone_weights,
    read_backbone_info,
    save_backbone,
)
from sslight.backbones.header import further_notes
from sslight.config import load_recipe
from sslight.data import Source, SubsetSource, build_source, labels_in, pack, select_subset
from sslight.evaluate import knn_classify
from sslight.evaluate.classifiers.logistic import fit_logistic_regression
from sslight.evaluate.features.cache import cached_features
from sslight.evaluate.features.extract import EvalTransform, Extraction
from sslight.evaluate.results import read_ranks
from sslight.files import write_whole
from sslight.intervals import wilson_interval
from sslight.methods import build_method
from sslight.train import TrainingStopped

_HELD_OUT, _SPLIT_SEED = 0.1, 1000
_SHARD_IMAGES = 100  # of a run with data.order=blocks: 250 shards of Tiny ImageNet-50
_SCHEDULED = {"lr", "weight_decay", "momentum", "teacher_temp", "epoch"}  # which the settings say
_MOST_RECORDS = 100  # of the curve that is kept


def main(folder: Path) -> None:
    """Do what is left of the run."""
    given = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    run, data = Run(**given["run"]), Path(given["data"])
    if "init_from" in run.settings:  # the result keeps the plan's own words, without a path of this machine
        run.settings["init_from"] = run.settings["init_from"].replace("{data}", str(data))
    torch.set_num_threads(given["threads"])
    with _session(folder) as so_far:
        train, images, val = image_sets(run, data / run.data, folder)
        backbone = _train(run, folder, train, images, given["threads"])
        path = folder / "result.json"
        measured = (read_result(path) or {"measured": {}})["measured"]
        for name in run.measure or [None]:
            if name is not None and name not in measured:
                measured[name] = _measure(run, name, folder, backbone, train, images, val)
            given = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            facts = _facts(folder, backbone, so_far())
            for part in ("curve", "accuracies"):  # five digits, and none that the settings say, for the same reason
                facts[part] = [
                    {key: _short(value) for key, value in record.items() if key not in _SCHEDULED}
                    for record in facts[part]
                ]
            write_result(path, {**given["run"], **facts, "measured": measured})
    for made in ("features", "shards"):
        shutil.rmtree(folder / made, ignore_errors=True)


def _short(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _end_with_the_queue() -> None:
    while os.read(0, 1024):  # ends when the queue does, however it ends
        pass  # not by sys.stdin: its lock, held here, would stop every loader process that is forked from now on
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _session(folder: Path) -> Iterator[Callable[[], dict[str, float]]]:
    """Note how long this process has worked, also where it is stopped; gives what it would note now."""
    begun, before = time.time(), _processor_seconds()

    def so_far() -> dict[str, float]:
        return {"begun": begun, "seconds": time.time() - begun, "processor_seconds": _processor_seconds() - before}

    try:
        yield so_far
    finally:
        with (folder / "sessions.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(so_far()) + "\n")


def _processor_seconds() -> float:
    return sum(used.ru_utime + used.ru_stime for used in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


def image_sets(run: Run, data: Path, folder: Path) -> tuple[Path, str | None, Path]:
    """Folder of the training images, a list file of those that are used (None: all), and folder of the queries."""
    train = data / "train"
    if not run.held_out:
        return train, None, data / "val"
    source = build_source([str(train)], labeled=True)
    drawn = {source.name(int(index)) for index in select_subset(source, _HELD_OUT, seed=_SPLIT_SEED)}
    held = folder.parent / ".held-out" / run.data  # of all runs, perhaps made by two at once
    for name in drawn:
        link = held / name
        link.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            link.symlink_to(train / name)
    kept = SubsetSource(source, np.array([i for i in range(len(source)) if source.name(i) not in drawn]))
    used = select_subset(kept, run.settings["data.subset"], 0) if "data.subset" in run.settings else range(len(kept))
    names = [kept.name(int(index)) for index in used]
    write_whole(folder / "images.txt", "".join(f"{name}\n" for name in names))
    return train, str(folder / "images.txt"), held


def _train(run: Run, folder: Path, train: Path, images: str | None, threads: int) -> Path:
    """Train the backbone, or go on with it; its file."""
    output = folder / "run"
    backbone = output / "backbone.safetensors"
    if backbone.exists():
        return backbone
    place = {"data.train": [str(train)], "seed": run.seed, "output": str(output)}
    if run.settings.get("data.order") == "blocks":
        place["data.train"] = [str(folder / "shards")]
        if not (folder / "shards").exists():
            source = build_source([str(train)], labeled=True)
            pack(source, folder / "shards", format="tar", shard_images=_SHARD_IMAGES)
    if images is not None:
        place["data.subset"] = images
    on_cpu: dict[str, Any] = {"workers": threads - 1, "devices": "cpu"}
    settings = {
        "precision": "bf16" if torch.cuda.is_available() or bf16_is_fast_on_cpu() else "32",
        **({} if torch.cuda.is_available() else on_cpu),
        "logger": "none",
        "probe.knn": True,  # of training images among each other: the validation images are used once, at the end
        "probe.knn_bank": 5000,
        "checkpoint.every_minutes": 10.0,
        "checkpoint.every_epochs": None,
        "checkpoint.keep_best": False,
        **run.settings,
        **place,
    }
    if (output / "config.yaml").exists():  # another machine may compute otherwise: a run stays as it began
        settings["precision"] = load_recipe(str(output / "config.yaml")).precision
    match run.code:
        case "sslight":
            sslight.pretrain(run.recipe, {**settings, "resume": "auto"})
        case "untrained":
            _save(_new_network(run, settings), run, settings, backbone)
        case "lightly":
            _train_lightly(run, settings, train, backbone)
        case other if other.startswith("candidate "):
            with candidate(other.removeprefix("candidate "), load_recipe(run.recipe).method):
                sslight.pretrain(run.recipe, {**settings, "resume": "auto"})
        case other:
            raise ValueError(f"code={other} of {run.name} is not one of sslight, untrained, lightly, candidate NAME.")
    return backbone


def _new_network(run: Run, settings: dict[str, Any]) -> torch.nn.Module:
    """The network with the weights from which ``sslight.pretrain`` starts."""
    recipe = load_recipe(run.recipe, settings)
    torch.manual_seed(run.seed)
    network = next(iter(build_method(recipe).networks.values()))
    if recipe.init_from is not None:
        load_backbone_weights(network, recipe.init_from)
    return network


def _save(network: torch.nn.Module, run: Run, settings: dict[str, Any], file: Path) -> None:
    recipe = load_recipe(run.recipe, settings)
    views = recipe.views
    about: dict[str, Any] = {"image_size": views.global_size, "patch_size": recipe.patch_size}
    about["notes"] = further_notes(recipe.init_from)  # by which fine-tuning knows weights of others, as after training
    file.parent.mkdir(parents=True, exist_ok=True)
    save_backbone(network, file, name=recipe.backbone, mean=views.mean, std=views.std, **about)


def _train_lightly(run: Run, settings: dict[str, Any], train: Path, file: Path) -> None:
    """The same method with lightly's parts; it keeps no checkpoint and starts anew after an interruption."""
    from lightly_side import train_lightly  # needs a package that few have

    recipe = load_recipe(run.recipe, settings)
    assert recipe.epochs is not None
    trained = train_lightly(
        recipe.method,
        _new_network(run, settings),
        train,
        seed=run.seed,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        workers=recipe.workers or 0,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    _save(trained.backbone, run, settings, file)
    record = {"step": trained.steps, "epoch": recipe.epochs - 1, "loss": trained.loss}
    write_whole(file.parent / "metrics.jsonl", json.dumps(record) + "\n")


def _measure(
    run: Run, name: str, folder: Path, backbone: Path, train: Path, images: str | None, val: Path
) -> dict[str, Any]:
    """A measurement: top-1 with its interval, and where it is cheap the rank of the right class for each image."""
    protocol, settings = name.split()[0], run.measure[name]
    if protocol in ("semi", "finetune"):
        output = folder / name.replace(" ", "-").replace("%", "percent")
        if not (output / "results.json").exists():
            places = {"data.train": [str(train)], "data.val": [str(val)], "output": str(output), "seed": run.seed}
            if protocol == "semi":
                sslight.evaluate_backbone("semi", backbone, {**places, **settings})
            else:
                sslight.finetune(backbone, {**places, "logger": "none", **settings})
        accuracy = json.loads((output / "results.json").read_text(encoding="utf-8"))["accuracy"]
        kept = read_ranks(output)
        assert kept is not None
        facts = {"top1": accuracy["top1"], "interval": accuracy["top1_interval"], "images": accuracy["num_images"]}
        return {**facts, "ranks": _digits(kept[1].sum(1).tolist())}  # with those that are level, as below
    bank, queries = bank_and_queries(train, images, val, settings.get("data.subset"))
    network = settings.get("network", "student")
    file = backbone if network == "student" else backbone.parent / "checkpoints" / "last.pt"
    transform, device = transform_of(file, settings), "cuda" if torch.cuda.is_available() else "cpu"
    module, features = load_backbone(file, network=network).to(device), []
    for source in (bank, queries):
        found = cached_features(module, source, transform, Extraction(device), folder=folder / "features")
        if found.num_unreadable:
            raise ValueError(f"{found.num_unreadable} images of {source} cannot be read: repair or remove them.")
        features.append(found.features.clone())
    ranks = ranks_of(run, name, bank, queries, *features)
    right = int((ranks == 0).sum())
    interval = wilson_interval(right, len(ranks))
    return {
        "top1": 100 * right / len(ranks),
        "interval": interval,
        "images": len(ranks),
        "ranks": _digits(ranks.tolist()),
    }


def _digits(ranks: Sequence[int]) -> str:
    """A digit for each image, 5 for 5 and more: the results lie in the repository."""
    return "".join(str(min(rank, 5)) for rank in ranks)


def bank_and_queries(train: Path, images: str | None, val: Path, subset: float | None = None) -> tuple[Source, Source]:
    """The labeled images that vote, or train the classifier, and those that are asked."""
    bank = build_source([str(train)], labeled=True)
    for part in (images, subset):
        if part is not None:
            bank = SubsetSource(bank, select_subset(bank, part, 0))
    return bank, build_source([str(val)], labeled=True)


def transform_of(file: Path, settings: dict[str, Any]) -> EvalTransform:
    """How an image becomes the input of the backbone in ``file``."""
    about = read_backbone_info(file)
    return EvalTransform(about.image_size, about.mean, about.std, settings.get("resize"))


def ranks_of(run: Run, name: str, bank: Source, queries: Source, known: Tensor, asked: Tensor) -> Tensor:
    """The rank of the right class for each query, 0 the first, by a measurement of the run on features."""
    settings = run.measure[name]
    assert bank.labels is not None
    assert bank.classes is not None
    labels, wanted = torch.from_numpy(bank.labels), torch.from_numpy(labels_in(queries, bank.classes))
    if name.split()[0] == "knn":
        k = min(settings.get("knn.k", 20), len(known))
        temperature = settings.get("knn.temperature", 0.07)
        scores = knn_classify(known, labels, asked, k=k, temperature=temperature, num_classes=len(bank.classes))
    elif settings.get("linear.mode") == "fast":
        scores = fit_logistic_regression(known, labels, num_classes=len(bank.classes), seed=run.seed).logits(asked)
    else:
        raise ValueError(
            f"{name} of {run.name} is not known: use knn, linear with linear.mode: fast, semi or finetune."
        )
    return (scores >= scores.gather(1, wanted[:, None])).sum(1) - 1  # ties count against the network


def _facts(folder: Path, backbone: Path, session: dict[str, float]) -> dict[str, Any]:
    """How the run went, up to and with this session: hours, curve, accuracies by epoch, verdicts, machine, versions."""
    found = records(folder / "run" / "metrics.jsonl")
    steps = [record for record in found if "loss" in record]
    thinned = steps[:: max(1, len(steps) // _MOST_RECORDS)]
    sessions = [*records(folder / "sessions.jsonl"), session]
    config = backbone.parent / "config.yaml"
    return {
        "steps": steps[-1]["step"] if steps else 0,
        "hours": sum(session["seconds"] for session in sessions) / 3600,
        "processor_hours": sum(session["processor_seconds"] for session in sessions) / 3600,
        "sessions": len(sessions),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "precision": load_recipe(str(config)).precision if config.exists() else "32",
        "versions": _versions(),
        "accuracies": [record for record in found if "knn_top1" in record],
        "curve": thinned + steps[-1:] * (bool(steps) and thinned[-1] is not steps[-1]),
    }


def _processor() -> str:
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    threads = torch.get_num_threads()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()}), {threads} thread{'s' * (threads > 1)}"


def _versions() -> dict[str, str]:
    found = {}
    for package in ("sslight", "lightly", "torch", "timm"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    with suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
        found["commit"] = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # while training, the loop has its own handler
    threading.Thread(target=_end_with_the_queue, daemon=True).start()
    try:
        main(Path(sys.argv[1]))
    except (ValueError, TrainingStopped) as error:
        sys.exit(f"error: {error}")
