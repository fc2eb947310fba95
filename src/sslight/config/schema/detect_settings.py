"""The typed settings of detection; ``sslight config detect`` prints the docstrings below the fields."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from sslight.config.schema import fields
from sslight.config.schema.training_settings import RestartSettings


def _powers_of_two(value: list[int]) -> list[int]:
    if any(stride & (stride - 1) for stride in value):
        raise ValueError("must be powers of two, such as [16, 32]")
    return value


Side = Annotated[int, Field(ge=32, le=4096)]
Strides = Annotated[fields.SortedOnce[fields.PositiveInt], AfterValidator(_powers_of_two)]


class DetectSettings(fields.Section):
    """Everything that determines the training and evaluation of a detector."""

    model: fields.TextPath
    """The backbone to start from (the second word of the command), named as in sslight evaluate knn.
    Unit: path or name. Try: runs/first/backbone.safetensors; timm:NAME to train from scratch."""

    network: fields.Network = "student"

    data: fields.TextPath | None = None
    """Images with boxes: a COCO folder (annotations/instances_SPLIT.json and SPLIT/*.jpg) or a Pascal VOC folder
    (VOC2007, VOC2012). Unit: path. Try: the folder into which you unpacked the archives."""

    train_split: fields.Paths = []
    """Split to train on. Empty: the one train split of a COCO folder, 2007_trainval and 2012_trainval of a VOC
    folder. Unit: name(s). Try: train2017, or [2007_trainval, 2012_trainval]."""

    val_split: fields.Paths = []
    """Split to evaluate on. Empty: the one val split of a COCO folder, 2007_test of a VOC folder.
    Unit: name(s). Try: val2017."""

    masks: bool = False
    """Also predict masks: Mask R-CNN instead of Faster R-CNN (COCO folders only).
    Unit: true or false. Try: true, as in the published COCO results."""

    schedule: Literal["1x", "2x"] = "1x"
    """The published lengths: 1x is 90,000 steps at batch 16 for COCO and 24,000 for VOC, 2x is twice as many. With
    another batch, the number of steps changes and the number of images stays the same. Unit: name. Try: 1x."""

    steps: fields.PositiveInt | None = None
    """Length of the training in steps, instead of a published schedule; the rate drops at the same shares of the run.
    Unit: steps. Try: null; 100 to see whether everything works."""

    batch_size: fields.PositiveInt = 16
    """Images in one step, over all devices.
    Unit: images. Try: 16, as published; the learning rate scales with it."""

    lr: fields.PositiveFloat = 0.02
    """Learning rate for 16 images per step; the rate used is lr · batch_size / 16.
    Unit: learning rate. Try: 0.02, as published for COCO; for VOC it is ours (the original's for ResNet-18: 0.005)."""

    weight_decay: fields.NonNegativeFloat = 1e-4
    """Weight decay, except for norm layers. Unit: per step, times lr. Try: 1e-4, as published."""

    warmup_steps: fields.NonNegativeInt | None = None
    """Steps of the linear warm-up from a thousandth of the rate. null: 1000 for COCO, 100 for VOC, as published, but
    at most a tenth of the run. Unit: steps. Try: null."""

    strides: Strides | None = None
    """Strides of the backbone's feature maps that form the pyramid; a pooled level is added.
    null: 16 and 32 for MobileNetV2, else those of 4, 8, 16 and 32 that exist, as published.
    Unit: px. Try: null; [16, 32] for less memory."""

    proposals: Annotated[int, Field(ge=8)] = 512
    """Proposals per image on which the heads are trained in a step, a quarter of them on objects if there are enough.
    Unit: boxes. Try: 512, as published; 64 or 128 if steps take seconds, as on a CPU."""

    train_sizes: fields.SortedOnce[Side] | None = None
    """Lengths of the shorter side; each training image takes one at random. null: 640 to 800 for COCO and 480
    to 800 for VOC in steps of 32, as published. Unit: px. Try: smaller ones on small devices."""

    test_size: Side = 800
    """Length of the shorter side in evaluation. Unit: px. Try: the largest of train_sizes."""

    max_size: Annotated[int, Field(ge=32, le=8192)] = 1333
    """Largest length of the longer side; wider images get a smaller shorter side. Unit: px. Try: 5/3 of test_size."""

    max_bad_share: fields.MaxBadShare = 0.01
    max_pixels: fields.MaxPixels = fields.MAX_PIXELS
    read_timeout: fields.ReadTimeout = fields.READ_TIMEOUT

    sample: fields.NonNegativeInt = 0
    """Images of val_split to draw with their predicted boxes and masks, into sample.png.
    Unit: images. Try: 8."""

    output: fields.FilePath | None = None
    """The run folder, with results.json at the end. null: a folder named after the settings in ``evaluation`` next to
    the checkpoint (timm models: in the current folder). Unit: path. Try: null."""

    resume: fields.Resume = False
    """Continue the run in the folder output from its last checkpoint; auto: continue if there is one, else start.
    Unit: true, false or auto. Try: true after an interruption."""

    devices: fields.Devices = "auto"

    precision: Annotated[Literal["32", "bf16", "16"], BeforeValidator(fields.as_text)] = "32"
    """Precision of the network: 32 (float32, as published), bf16 or 16 (mixed).
    Unit: name. Try: bf16 on recent GPUs."""

    workers: fields.Workers | None = None
    """Processes that decode and resize, per training process; null: none on a CPU, else the machine's cores
    divided by its training processes. Unit: processes. Try: null."""

    seed: fields.Seed = 0
    """Seed of new layers, order, sizes, flips and the detector's own sampling.
    Unit: none. Try: several, to see how much results vary."""

    log_every: fields.LogEvery = 20
    logger: fields.Logger = ["tensorboard"]
    checkpoint: RestartSettings = RestartSettings()
    explained_by: ClassVar[str] = "sslight config detect.{key}"

    def without_effect(self) -> list[tuple[str, bool, str]]:
        """See :class:`Section`."""
        return [
            ("schedule", self.steps is not None, "steps gives the length"),
            ("network", fields.is_new_network(self.model), "a timm model is one network"),
        ]

    @model_validator(mode="after")
    def _rules_between_settings(self) -> Self:
        for name, size in (("test_size", self.test_size), ("train_sizes", max(self.train_sizes or [0]))):
            if size > self.max_size:
                raise ValueError(
                    f"{name}={size} is above max_size={self.max_size}, the limit of the longer side: "
                    f"set max_size={round(size * 5 / 3)}"
                )
        return self
