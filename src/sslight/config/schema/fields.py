"""What all settings are made of: a strict section, and what fields of several commands share."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

MAX_PIXELS = 100_000_000
"""Largest accepted image, in px, unless set."""

LARGEST_MAX_PIXELS = 178_956_970
"""Largest that can be set, in px: beyond it PIL refuses, too."""

READ_TIMEOUT = 300.0
"""Seconds that reading and decoding one image may take, unless set."""

_V = TypeVar("_V")


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if not 0.0 < value[0] <= value[1]:
        raise ValueError("must be two numbers, 0 < smallest ≤ largest")
    return value


def _shares(value: tuple[float, float]) -> tuple[float, float]:
    if not 0.0 < value[0] <= value[1] <= 1.0:
        raise ValueError("must be two shares of the image area, 0 < smallest ≤ largest ≤ 1")
    return value


def as_list(value: object) -> object:
    """A single word as a list of one, also if YAML made a number of it."""
    return [value] if isinstance(value, str | Path) else as_numbers(value)


def as_numbers(value: object) -> object:
    """A single number as a list of one."""
    return [value] if isinstance(value, int | float) else value


def sorted_once(value: list[_V]) -> list[_V]:
    """Numbers in rising order, each once."""
    if not value:
        raise ValueError("needs at least one number, as in [20]")
    return sorted(set(value))  # type: ignore[type-var]


def as_text(value: object) -> object:
    """A number that YAML made of a word that consists of digits, as that word again."""
    if isinstance(value, list | tuple):
        return [as_text(item) for item in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def is_new_network(checkpoint: str) -> bool:
    """Whether ``checkpoint`` names one of timm's networks, not a file of weights."""
    return checkpoint.startswith("timm:") and "@" not in checkpoint


def expanded(value: str) -> str:
    """A path whose ``~`` stands for the user's home; in ``timm:NAME@FILE`` that of the file."""
    name, at, file = value.partition("@")
    if at and name.startswith("timm:"):
        return f"{name}@{os.path.expanduser(file)}"  # noqa: PTH111 - never raises
    return os.path.expanduser(value)  # noqa: PTH111


def _check_resume(value: object) -> object:
    if value not in ("auto", True, False) or not isinstance(value, str | bool):
        raise ValueError("must be true, false or auto")
    return value


def _check_devices(value: str) -> str:
    if value not in ("auto", "cpu", "gpu") and not (value.isdecimal() and int(value) > 0):
        raise ValueError("must be auto, cpu, gpu or a number of GPUs")
    return value


def _check_logger(value: list[str]) -> list[str]:
    if not value or len(set(value)) < len(value) or ("none" in value and len(value) > 1):
        raise ValueError("must be none, or one or more of tensorboard, wandb, mlflow and trackio, each once")
    return value


Probability = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
NonNegativeFloat = Annotated[float, Field(ge=0.0)]
SortedOnce = Annotated[list[_V], BeforeValidator(as_numbers), AfterValidator(sorted_once)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Workers = Annotated[int, Field(ge=0, le=1024)]
AreaShares = Annotated[tuple[float, float], AfterValidator(_shares)]
Jitter = tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat, Annotated[float, Field(ge=0, le=0.5)]]
Side = Annotated[int, Field(ge=8, le=4096)]
Interval = Annotated[tuple[float, float], AfterValidator(_ordered)]
Resume = Annotated[bool | Literal["auto"], BeforeValidator(_check_resume)]
TextPath = Annotated[str, AfterValidator(expanded)]
FilePath = Annotated[Path, AfterValidator(lambda path: Path(expanded(str(path))))]
Paths = Annotated[list[TextPath], BeforeValidator(as_text), BeforeValidator(as_list)]

# Fields of several commands, explained once.
# fmt: off
MaxPixels = Annotated[int, Field(ge=1, le=LARGEST_MAX_PIXELS, description="""Largest image to decode, as
    width × height; larger ones count as unreadable, before memory is allocated. A worker needs up to 9 bytes per pixel.
    Unit: px. Try: the size of your largest images; less if anybody can add images.""")]  # PIL's own limit

MaxBadShare = Annotated[float, Field(ge=0.0, le=1.0, description="""Largest share of unreadable images to
    tolerate. In training they are replaced and listed; elsewhere they are left out and counted (in
    detection their objects count as missed). Unit: share of the images. Try: 0 to tolerate none.""")]

ReadTimeout = Annotated[float, Field(gt=0.0, description="""Longest time that a worker process may take to read and
    decode one image; after it, the command stops and names the image. With workers=0 there is no such limit.
    Unit: seconds. Try: more for slow stores; less to notice a dead disk sooner.""")]

Subset = Annotated[TextPath | float | None, Field(description="""Part of data.train to use: a list file (one name
    or index per line, or lines of ``index,label,wnid,filename``) or a share between 0 and 1, drawn with
    data.subset_seed and stratified by class. null uses all.
    Unit: path or share. Try: 0.1 for a quick look; for semi the published 1 % or 10 % list, or 0.01 or 0.1.""")]

LabelTable = Annotated[TextPath | None, Field(description="""Table with the classes of the images, instead of folders
    (labels: of data.train, val_labels: of data.val): lines of name and label, with or without
    a header line; one table may serve both.
    Unit: path. Try: null if each class has its own folder; else your CSV file.""")]

LabelsColumn = Annotated[str | None, Field(description="""Heading of the label column, in tables with more than two
    columns; null: the second of two. Unit: name. Try: null, or the heading in the table's first line.""")]

MultiLabel = Annotated[bool | None, Field(description="""Whether the label column holds lists of labels, such as cat;wet
    (separated by semicolons, bars or commas, or written as in JSON), for sslight finetune alone. false: each is the
    name of one class. null: one class, unless all columns after the names hold 0 and 1; what looks like a list is an
    error. Unit: true or false. Try: null.""")]

TarImage = Annotated[str | None, Field(description="""Which image to read in tar shards if a sample holds several:
    its suffix, or ``all``. null takes ``KEY.jpg`` rather than ``KEY.seg.png`` (the suffix with the fewest dots,
    then jpg before png and others). Unit: suffix. Try: null; seg.png for the masks.""")]

SubsetSeed = Annotated[Seed, Field(description="""Seed of the draw if data.subset is a share.
    Unit: none. Try: another number for another draw of the same size; several, to see how much results vary.""")]

Network = Annotated[Literal["student", "teacher"], Field(description="""Which network of a checkpoint to use: the
    trained one (student, query), or its moving average (teacher, key). Unit: name. Try: student, as published.""")]

Devices = Annotated[str, BeforeValidator(as_text), AfterValidator(_check_devices), Field(description="""Devices to
    use: auto (all GPUs, else the CPU), cpu, gpu (all GPUs) or a number of GPUs. torchrun and srun set
    the number of processes themselves. Unit: name or number. Try: auto.""")]

LogEvery = Annotated[int, Field(ge=1, description="""Steps between lines of metrics.jsonl, in training.
    Unit: steps. Try: 10 or 20; each line makes the host wait for the device once.""")]

Logger = Annotated[list[Literal["tensorboard", "wandb", "mlflow", "trackio", "none"]], BeforeValidator(as_list),
    AfterValidator(_check_logger), Field(description="""Where to send metrics besides metrics.jsonl, one or a list:
    tensorboard, wandb (Weights & Biases), mlflow, trackio, or none. The last three need their own package, take the
    address and project from their own environment variables, and get a report page at the end of pre-training.
    Unit: name(s). Try: tensorboard.""")]

MinLR = Annotated[float, Field(ge=0.0, description="""Learning rate at the end of the cosine schedule; not scaled with
    the batch. Unit: learning rate. Try: 1e-6, as published.""")]

KNNTemperature = Annotated[float, Field(gt=0.0, description="""Temperature of the votes exp(cosine / temperature).
    Unit: cosine. Try: 0.07, as published.""")]

# fmt: on


def leaf_types(annotation: Any) -> set[Any]:
    """The plain types that a field's value may be made of: ``list[str] | None`` has str and NoneType."""
    args = get_args(annotation)
    if get_origin(annotation) is Literal:
        return {Literal}
    if get_origin(annotation) is Annotated:
        return leaf_types(args[0])
    return set().union(*map(leaf_types, args)) if args else {annotation}


def choices(annotation: Any) -> list[str]:
    """The names that a field's value may be, as they are typed; none if it may be another text, number or path."""
    if annotation is bool:
        return ["true", "false"]
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    names = [choices(each) for each in get_args(annotation) if each not in (type(None), ...)]
    return [] if [] in names else list(dict.fromkeys(name for each in names for name in each))


class Section(BaseModel):
    """A group of settings; unknown names are errors, values do not change once built."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    explained_by: ClassVar[str] = ""
    """The command that explains the settings; ``{key}`` in it is the one in question."""

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        types = leaf_types(cls.model_fields[str(info.field_name)].annotation)
        given = value if isinstance(value, list | tuple) else [value]
        if types & {int, float} and bool not in types and any(isinstance(item, bool) for item in given):
            raise ValueError("must be a number, which true and false are not")
        return value

    def without_effect(self) -> Iterable[tuple[str, bool, str]]:
        """Names of settings (``dino.`` for a group), whether they have no effect beside the others, and why."""
        return ()
