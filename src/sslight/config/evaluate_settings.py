"""The typed settings of an evaluation; ``sslight config evaluate`` prints the docstrings below the fields."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from sslight.config.fields import (
    MAX_PIXELS,
    READ_TIMEOUT,
    MaxPixels,
    NonNegativeFloat,
    Paths,
    PositiveFloat,
    PositiveInt,
    Probability,
    Section,
    Seed,
    Workers,
    as_text,
)
from sslight.config.pretrain_settings import check_devices


def _as_numbers(value: object) -> object:
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


def _sorted_once(value: list[int]) -> list[int]:
    if not value:
        raise ValueError("needs at least one number, as in [20]")
    return sorted(set(value))


def _not_empty(value: list[float]) -> list[float]:
    if not value:
        raise ValueError("needs at least one rate, as in [0.05]")
    return sorted(set(value))


class EvaluateDataSettings(Section):
    """The labelled images of an evaluation."""

    train: Paths = []
    """Labelled images that vote (knn) or train the classifier (linear, semi): a folder of class
    folders, an H5 file or ``synthetic:N``; a list joins several.
    Unit: path(s). Try: the training set of the task."""

    val: Paths = []
    """Labelled images whose classes are predicted; their classes must be among those of data.train.
    Unit: path(s). Try: the validation set of the task."""

    subset: str | float | None = None
    """Which part of data.train is used: a list file (one name or index a line, or lines of
    ``index,label,wnid,filename``) or a share between 0 and 1, drawn with data.subset_seed and
    stratified by class. null uses all.
    Unit: path or share. Try: for semi the published 1 % or 10 % list, or 0.01 or 0.1."""

    subset_seed: Seed = 0
    """Seed of the draw when data.subset is a share.
    Unit: none. Try: several, to see how far results vary."""

    tar_image: str | None = None
    """Which image is read of a sample that holds several, in tar shards: its suffix, or ``all``. null takes ``KEY.jpg``
    beside ``KEY.seg.png`` (the suffix with the fewest dots, then jpg before png and others).
    Unit: suffix. Try: null; seg.png for the masks."""

    max_bad_share: Probability = 0.01
    """Largest share of unreadable images in data.train or data.val that is accepted; they are left
    out, and counted in the result.
    Unit: share of the images. Try: 0 to accept none."""

    max_pixels: MaxPixels = MAX_PIXELS
    """Largest image that is decoded, as width × height; larger ones count as unreadable, before memory
    is taken for them. A worker needs up to 9 bytes for each pixel.
    Unit: px. Try: the number of your largest images; a small one where anybody can add images."""

    read_timeout: PositiveFloat = READ_TIMEOUT
    """Longest time that reading and decoding one image may take in a worker process; then the evaluation
    stops and names the image. With workers=0 there is no such limit.
    Unit: seconds. Try: more for stores that answer slowly; less to notice a dead disk sooner."""


class KNNSettings(Section):
    """Weighted k-nearest-neighbour classification."""

    k: Annotated[list[PositiveInt], BeforeValidator(_as_numbers), AfterValidator(_sorted_once)] = [1, 10, 20, 100, 200]
    """Neighbours that vote; every number is measured in the same pass.
    Unit: images. Try: fewer for sets with fewer than 200 training images."""

    temperature: PositiveFloat = 0.07
    """Temperature of the votes exp(cosine / temperature).
    Unit: cosine. Try: 0.07, as published."""


class LinearSettings(Section):
    """A linear classifier on the frozen backbone."""

    mode: Literal["exact", "fast"] = "exact"
    """exact: the published protocol, a classifier trained on random crops that pass through the
    backbone in every epoch. fast: logistic regression on the features of centre crops.
    Unit: name. Try: fast while developing, exact for a table."""

    last_blocks: PositiveInt | None = None
    """Of a ViT: concatenate the class tokens of so many last blocks. null takes 4 for ViTs with a
    class token (as published), and the backbone's own output for all others.
    Unit: blocks. Try: null."""

    epochs: PositiveInt = 100
    """Length of the exact protocol.
    Unit: passes over data.train. Try: 100, as published; 10 for a first look."""

    batch_size: PositiveInt | None = None
    """Images in one step of the exact protocol, over all devices. null: 4096 with LARS, 1024 with
    SGD, as published, but not more than an eighth of data.train.
    Unit: images. Try: null."""

    optimizer: Literal["lars", "sgd"] | None = None
    """Optimiser of the exact protocol; null: sgd for ViTs, lars for all others, as published.
    Unit: name. Try: null."""

    lr: Annotated[list[PositiveFloat], BeforeValidator(_as_numbers), AfterValidator(_not_empty)] | None = None
    """Learning rates for 256 images a step that are trained side by side on the same features; the
    best on a part of data.train that is held out for it gives the result. null: the published rate
    (0.05 with LARS, 0.01 with SGD) and 3, 10, 30, ... times as much, the further the fewer images
    times epochs there are than in the published run.
    Unit: learning rate. Try: [0.05] or [0.01] for exactly the published rate."""

    min_lr: NonNegativeFloat = 1e-6
    """Learning rate that the cosine schedule ends at; not scaled with the batch.
    Unit: learning rate. Try: 1e-6, as published."""

    held_out_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of data.train by which the best of several rates (exact) or strengths of regularisation
    (fast) is chosen; at most 10,000 images. The result is of classifiers trained on all of data.train.
    Unit: share. Try: 0.1."""


class SemiSettings(Section):
    """Fine-tuning of the whole network with few labels (choose them with data.subset)."""

    head: Literal["auto", "projection", "linear"] = "auto"
    """projection: the hidden layers of the DINO projection head carry over, followed by a new linear
    layer, as published. linear: a new linear layer on the backbone alone. auto: projection where the
    checkpoint has such a head with batch norm, else linear; the result says which.
    Unit: name. Try: auto, with a checkpoint rather than an export, which has no head."""

    epochs: PositiveInt | None = None
    """Length of the fine-tuning; null: 60 below 5 % of the labels, else 30, as published for 1 % and 10 %.
    Unit: passes over the selected images. Try: null."""

    batch_size: PositiveInt | None = None
    """Images in one step, over all devices; null: 1024, as published, but not more than a quarter of
    the selected images.
    Unit: images. Try: null."""

    lr: PositiveFloat = 0.03
    """Learning rate for 256 images a step.
    Unit: learning rate. Try: 0.03, as published; 0.01 and 0.1 where the set is unlike ImageNet."""

    head_lr_factor: PositiveFloat = 1.0
    """By which the rate is multiplied for the whole classifier, carried-over layers included.
    Unit: factor. Try: 1, as published; 5 or 10 with a new linear head."""

    min_lr: NonNegativeFloat = 1e-6
    """Learning rate that the cosine schedule ends at; not scaled with the batch.
    Unit: learning rate. Try: 1e-6, as published."""


class EvaluateSettings(Section):
    """Everything that determines an evaluation."""

    protocol: Literal["knn", "linear", "semi"]
    """What is measured: knn, linear or semi (the first word of the command).
    Unit: name. Try: knn first, it takes a minute."""

    checkpoint: str
    """The backbone (the second word of the command): an export or checkpoint of this program, a
    .pth.tar of the original implementation, ``timm:NAME`` for a new network of timm, or
    ``timm:NAME@FILE`` for one with weights from a .safetensors or .pth file.
    Unit: path or name. Try: runs/first/backbone.safetensors."""

    network: Literal["student", "teacher"] = "student"
    """Which network of a checkpoint: the one that was trained (student, query), or its moving mean
    (teacher, key).
    Unit: name. Try: student, as published."""

    output: Path | None = None
    """Folder for results.json and what belongs to it. null: a folder named after protocol and
    settings in ``evaluation`` beside the checkpoint (timm models: in the current folder).
    Unit: path. Try: null."""

    cache: Path | None = None
    """Folder in which features are kept, so that a second protocol or a repeat needs no backbone; all
    processes must see it. null: ``sslight/features`` in the user's cache folder.
    Unit: path. Try: a local disk with room; a feature takes 4 bytes."""

    image_size: Annotated[int, Field(ge=8, le=4096)] | None = None
    """Side of the centre crop that is classified; null: that of the global views in pre-training (of
    timm models: their own).
    Unit: px. Try: null."""

    resize: Annotated[int, Field(ge=8, le=4096)] | None = None
    """Shorter side to which images are resized before the centre is cut; null: 256 / 224 of image_size.
    Unit: px. Try: null; image_size to use whole square images."""

    devices: Annotated[str, BeforeValidator(as_text), AfterValidator(check_devices)] = "auto"
    """Where to compute: auto (all GPUs, else the CPU), cpu, gpu (all GPUs) or a number of GPUs. Under
    torchrun and SLURM the number of processes is theirs.
    Unit: name or number. Try: auto."""

    precision: Annotated[Literal["32", "bf16"], BeforeValidator(as_text)] = "32"
    """Arithmetic of the backbone: 32 (float32, as published) or bf16 (mixed).
    Unit: name. Try: bf16 on recent GPUs for long evaluations."""

    workers: Workers | None = None
    """Processes that decode images, per computing process; null: none on a CPU, else the cores of this
    machine divided by the computing processes on it.
    Unit: processes. Try: null."""

    feature_batch_size: PositiveInt = 256
    """Images that pass through the frozen backbone at once, per device; results do not depend on it.
    Unit: images. Try: more on large GPUs, less when memory runs out."""

    seed: Seed = 0
    """Seed of all that is random: new layers, crops, order, the part held out.
    Unit: none. Try: several, to see how far results vary."""

    data: EvaluateDataSettings = EvaluateDataSettings()
    knn: KNNSettings = KNNSettings()
    linear: LinearSettings = LinearSettings()
    semi: SemiSettings = SemiSettings()

    @model_validator(mode="after")
    def _rules_between_settings(self) -> Self:
        if self.resize is not None and self.image_size is not None and self.resize < self.image_size:
            raise ValueError(
                f"resize={self.resize} is smaller than image_size={self.image_size}: resize to at least that"
            )
        return self
