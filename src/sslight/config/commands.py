"""The one grammar: what is typed for each command, read from its words, shown by its help and by ``sslight config``."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from sslight.config.explain import fields_of
from sslight.config.overrides import build, parse_assignments
from sslight.config.schema import fields
from sslight.config.schema.detect_settings import DetectSettings
from sslight.config.schema.evaluate_settings import PROTOCOLS, EvaluateSettings
from sslight.config.schema.export_settings import ExportSettings
from sslight.config.schema.finetune_settings import FinetuneSettings
from sslight.config.schema.pack_settings import InspectSettings, PackSettings
from sslight.config.schema.predict_settings import EmbedSettings, PredictSettings, SelectSettings
from sslight.config.schema.pretrain_settings import PretrainSettings
from sslight.config.schema.report_settings import ReportSettings
from sslight.config.schema.views_settings import ViewsPageSettings

_S = TypeVar("_S", bound=fields.Section)


class AutoSettings(fields.Section):
    """How long a run with ``auto`` may take."""

    explained_by: ClassVar[str] = "sslight config plan.{key}"

    hours: fields.PositiveFloat | None = None
    """Time that the run may take, from now on; null: no limit, and the plan says how long it takes.
    Unit: hours. Try: 8 for a night."""


class PlanSettings(AutoSettings):
    """How a run is planned."""

    save: fields.FilePath | None = None
    """A new YAML file for the settings; sslight pretrain takes it as a recipe. Unit: path. Try: plan.yaml."""


class BenchSettings(fields.Section):
    """How long ``sslight bench loader`` measures."""

    explained_by: ClassVar[str] = "sslight config bench.{key}"

    seconds: fields.PositiveFloat = 15.0
    """How long to load. Unit: seconds. Try: 60 on a busy machine."""


class ImportSettings(fields.Section):
    """How other programs' weights are imported."""

    explained_by: ClassVar[str] = "sslight config import.{key}"

    output: fields.FilePath
    """The new file to write. Unit: path. Try: backbone.safetensors."""

    backbone: str | None = None
    """timm's name of the network; null: read from the file. Unit: name. Try: null; resnet50 for a file without it."""

    network: fields.Network = "student"


class ConfigSettings(fields.Section):
    """What ``sslight config`` translates."""

    explained_by: ClassVar[str] = "sslight config config.{key}"

    from_original: fields.FilePath | None = None
    """A configuration of the original implementation to print as a recipe. Unit: path. Try: null."""


@dataclass(frozen=True)
class Command:
    """What is typed after the name of a command.

    Attributes:
        first: What it works on, in its order: names of ``FIRST_WORDS``; ``...`` for one or several.
        kinds: The settings that are typed as ``key=value``, in any order; of one name the first kind's.
        main: The settings that its help shows.
        examples: Two that are typed.
    """

    first: tuple[str, ...]
    kinds: tuple[type[fields.Section], ...]
    main: tuple[str, ...]
    examples: tuple[str, str]


def _command(first: str, kinds: tuple[type[fields.Section], ...], main: str, one: str, another: str) -> Command:
    return Command(tuple(first.split()), kinds, tuple(main.split()), (one, another))


FIRST_WORDS = {
    "RECIPE": "a recipe (`sslight recipes` lists them), a YAML file, or a run folder, whose settings are taken; of "
    "pretrain also auto: settings for your images, this machine and hours=H",
    "PROTOCOL": "knn, linear, semi (fine-tuning with few labels) or detect",
    "CHECKPOINT": "a run folder, an export or a checkpoint (also the original's), timm:NAME.TAG, hf-hub:OWNER/NAME or "
    "timm:NAME@FILE for other weights, timm:NAME for new ones",
    "RUN": "a run folder, an export or a checkpoint (also the original's)",
    "MODEL": "a run folder, a classifier or an export (.safetensors, .onnx, .tflite, .pte); for embed and select also "
    "a checkpoint, timm:NAME.TAG or timm:NAME@FILE",
    "IMAGES": "a folder of images, an H5 file, tar shards or synthetic:N, as data.train takes; '[A, B]' joins several",
    "IMAGES...": "a folder of images, an H5 file, tar shards, or image files",
    "RUN...": "run folders, and results.json files (or their folders) that do not lie in them; or a folder of runs, "
    "for a table of all in it",
    "RESULT...": "results.json files, their folders, or run folders; of two, the difference is given, of several seeds "
    "too: A1 A2 A3 vs B1 B2 B3",
    "FILE": "weights of another program (.pth, .pt, .ckpt, .safetensors, the original's .pth.tar), timm:NAME or "
    "hf-hub:OWNER/NAME",
    "KEY": "a setting such as lr, a group such as views, or a command such as export; none lists all of pretrain",
    "NAME": "a recipe, which is printed; none lists all",
}

# fmt: off
COMMANDS = {
    "pretrain": _command(
        "RECIPE", (AutoSettings, PretrainSettings),
        "hours data.train output backbone epochs batch_size data.val resume init_from",
        "auto data.train=photos output=runs/first hours=8", "dino_cnn_sslight_64 data.train=photos output=runs/first"),
    "plan": _command(
        "IMAGES", (PlanSettings, PretrainSettings), "hours save backbone output data.val",
        "photos hours=8", "photos backbone=resnet18 save=plan.yaml"),
    "finetune": _command(
        "CHECKPOINT", (FinetuneSettings,), "data.train data.val data.labels output epochs holdout init",
        "runs/first data.train=labeled/train data.val=labeled/val output=runs/classifier",
        "runs/first data.train=photos data.labels=labels.csv output=runs/classifier"),
    "evaluate": _command(
        "PROTOCOL CHECKPOINT", (EvaluateSettings,), "data.train data.val data.subset linear.mode output network",
        "knn runs/first data.train=labeled/train data.val=labeled/val",
        "linear runs/first data.train=labeled/train data.val=labeled/val linear.mode=fast"),
    "evaluate detect": _command(
        "PROTOCOL CHECKPOINT", (DetectSettings,), "data masks schedule steps output",
        "detect runs/first data=coco masks=true", "detect runs/first data=coco steps=1000"),
    "compare": _command(
        "RESULT...", (), "", "runs/first/evaluation/knn-1 runs/second/evaluation/knn-1", "a1 a2 a3 vs b1 b2 b3"),
    "predict": _command(
        "MODEL IMAGES...", (PredictSettings,), "output neighbors batch_size devices workers",
        "runs/classifier photos output=predictions.csv", "export/classifier.onnx a.jpg b.jpg output=predictions.csv"),
    "embed": _command(
        "MODEL IMAGES...", (EmbedSettings,), "output neighbors image_size network batch_size devices workers",
        "runs/first photos output=features.npz", "runs/first a.jpg b.jpg output=features.csv"),
    "select": _command(
        "MODEL IMAGES...", (SelectSettings,), "output num labeled near_duplicate image_size network batch_size",
        "runs/first photos num=300 output=to_label.csv", "runs/first photos labeled=to_label.csv output=more.csv"),
    "views": _command(
        "IMAGES", (ViewsPageSettings, PretrainSettings),
        "recipe output images draws views.local_size views.local_scale",
        "photos recipe=dino_cnn_sslight_64", "photos recipe=runs/first views.local_size=112"),
    "export": _command(
        "RUN", (ExportSettings,), "data.check format data.calibration output classifier image_size",
        "runs/first data.check=photos", "runs/classifier data.check=photos format=onnx-int8 data.calibration=others"),
    "report": _command(
        "RUN...", (ReportSettings,), "output images queries seed",
        "runs/first", "runs/first runs/second output=both.html images=0"),
    "recipes": _command("[NAME]", (), "", "", "dino_cnn_sslight"),
    "config": _command("[KEY]", (ConfigSettings,), "from_original", "views.local_size", "export"),
    "import": _command(
        "FILE", (ImportSettings,), "output backbone network",
        "theirs.pth.tar output=backbone.safetensors", "resnet.ckpt backbone=resnet50 output=backbone.safetensors"),
    "bench loader": _command(
        "RECIPE", (BenchSettings, PretrainSettings), "data.train seconds workers batch_size",
        "dino_cnn_sslight_64 data.train=photos", "runs/first seconds=60 workers=4"),
    "bench step": _command(
        "RECIPE", (PretrainSettings,), "data.train steps precision batch_size",
        "dino_cnn_sslight_64 data.train=photos", "runs/first steps=50 precision=bf16"),
    "data pack": _command(
        "IMAGES", (PackSettings,), "output format short_side shard_images workers",
        "photos output=shards short_side=512", "photos output=photos.h5"),
    "data inspect": _command(
        "IMAGES", (InspectSettings,), "sample workers max_pixels tar_image", "photos", "photos sample=5000"),
}
# fmt: on
KINDS: dict[str, type[fields.Section]] = {
    kind.explained_by.split()[-1].partition(".")[0]: kind
    for command in COMMANDS.values()
    for kind in command.kinds
    if kind not in (PretrainSettings, AutoSettings)
}
"""The settings of the commands but pre-training, by the name under which ``sslight config`` explains them."""


def usage(name: str) -> str:
    """``sslight export RUN [KEY=VALUE]...``."""
    command = COMMANDS[name]
    settings = ["[KEY=VALUE]..."] if command.kinds else []
    return " ".join(["sslight", *name.removesuffix(" detect").split(), *command.first, *settings])


def is_setting(word: str) -> bool:
    """Whether a word is typed as ``key=value``, and no file or folder is called so."""
    return re.match(r"[\w.]*=", word) is not None and not os.path.exists(word)  # noqa: PTH110 - never raises


def read_words(name: str, words: Iterable[str] | None) -> tuple[list[str], dict[str, Any]]:
    """What a command works on, as typed, and its settings: dotted names to values.

    Settings are the words of the form ``key=value``, wherever they stand. Raises ValueError if a first word is
    missing, and as :func:`~sslight.config.overrides.parse_assignments`.
    """
    command, left = COMMANDS[name], list(words or [])
    several, keys = command.first[-1].endswith("..."), fields_of(*command.kinds) if command.kinds else {}
    plain = [word for word in left if not is_setting(word)]
    if not several:
        plain = plain[: len(command.first)]
    elif apart := next((word for word in plain if word.strip("=:") in keys and not os.path.exists(word)), None):  # noqa: PTH110
        plain = plain[: plain.index(apart)]
    for word in plain:
        left.remove(word)
    if left and not command.kinds:
        raise ValueError(f"{left[0]} has no place in `{usage(name)}`: leave it out.")
    needed = [each for each in command.first if not each.startswith("[")]
    settings = parse_assignments(left, *command.kinds) if left else {}
    if len(plain) < len(needed):
        example = f"`sslight {name.removesuffix(' detect')} {command.examples[0]}`"
        raise ValueError(f"no {needed[len(plain)].strip('.')} given: write `{usage(name)}`, such as {example}.")
    if len(needed) > 1 and _are_exchanged(needed[0], *plain[:2]):
        raise ValueError(f"{plain[0]} and {plain[1]} are exchanged: write `{usage(name)}`.")
    return plain, settings


def _are_exchanged(kind: str, first: str, second: str) -> bool:
    """Whether a protocol follows its checkpoint, or a run the folder of images that is to pass through it."""
    if kind == "PROTOCOL":
        return second in (*PROTOCOLS, "detect")
    runs = [os.path.exists(f"{word}/config.yaml") for word in (first, second)]  # noqa: PTH110 - never raises
    return os.path.isdir(first) and runs == [False, True]  # noqa: PTH112


def take_settings(settings: dict[str, Any], of: type[_S]) -> _S:
    """The settings of one kind, taken out of those that a command has. Raises ValueError as ``build``."""
    return build(of, {key: settings.pop(key) for key in list(settings) if key in fields_of(of)})


def image_paths(word: str) -> list[str]:
    """The paths that one word for images means: as a value of data.train."""
    found: str | list[str] = parse_assignments([f"data.train={word}"])["data.train"]
    return [found] if isinstance(found, str) else found
