"""The typed settings of an evaluation; ``sslight config evaluate`` prints the docstrings below the fields."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sslight.config.schema import fields
from sslight.config.schema.training_settings import RestartSettings

PROTOCOLS = ("knn", "linear", "semi")


LABELED = "labeled"
"""The value of data.subset for the images that have a label."""


class EvaluateDataSettings(fields.Section):
    """The labeled images of an evaluation."""

    train: fields.Paths = []
    """Labeled images that vote (knn) or train the classifier (linear, semi): a folder of class folders, an H5 file or
    ``synthetic:N``; a list joins several. Unit: path(s). Try: the training set of the task."""

    val: fields.Paths = []
    """Labeled images to classify; their classes must be among those of data.train.
    Unit: path(s). Try: the validation set of the task."""

    subset: fields.TextPath | float | None = None
    """Which part of data.train is used: labeled (those images that the table data.labels gives a label), a list file
    (one name or index a line, or lines of ``index,label,wnid,filename``) or a share between 0 and 1, drawn with
    data.subset_seed and stratified by class. null uses all.
    Unit: word, path or share. Try: labeled with the table of sslight select; for semi the published 1 % or 10 % list,
    or 0.01 or 0.1."""

    labels: fields.LabelTable = None
    val_labels: fields.LabelTable = None
    labels_column: fields.LabelsColumn = None
    multi_label: fields.MultiLabel = None
    subset_seed: fields.SubsetSeed = 0
    tar_image: fields.TarImage = None
    max_bad_share: fields.MaxBadShare = 0.01
    max_pixels: fields.MaxPixels = fields.MAX_PIXELS
    read_timeout: fields.ReadTimeout = fields.READ_TIMEOUT


class KNNSettings(fields.Section):
    """Weighted k-nearest-neighbor classification."""

    k: fields.SortedOnce[fields.PositiveInt] | None = None
    """Number of neighbors that vote; all numbers are measured in one pass. null: 1, 10, 20, 100 and 200, up to the
    number of training images.
    Unit: images. Try: null; 20 alone is faster."""

    temperature: fields.KNNTemperature = 0.07


class LinearSettings(fields.Section):
    """A linear classifier on the frozen backbone."""

    mode: Literal["published", "trained", "fast"] = "trained"
    """How the classifier is trained. trained: on random crops that pass through the backbone in every epoch, with the
    settings below. published: the same for 100 epochs with only the published rate and the published batch. fast:
    logistic regression on the features of center crops.
    Unit: name. Try: fast while developing, trained to compare networks, published to compare with published results."""

    last_blocks: fields.PositiveInt | None = None
    """For a ViT: concatenate the class tokens of this many last blocks. null: 4 for ViTs with a class token (as
    published), and the backbone's own output for all others. Unit: blocks. Try: null."""

    epochs: fields.PositiveInt = 100
    """Length of the training.
    Unit: passes over data.train. Try: 100, as published; 10 for a first look."""

    batch_size: fields.PositiveInt | None = None
    """Images in one step of the training, over all devices. null: 4096 with LARS, 1024 with
    SGD, as published, but at most an eighth of data.train.
    Unit: images. Try: null."""

    optimizer: Literal["lars", "sgd"] | None = None
    """Optimizer of the training; null: sgd for ViTs, lars for all others, as published.
    Unit: name. Try: null."""

    lr: fields.SortedOnce[fields.PositiveFloat] | None = None
    """Learning rates for 256 images per step, trained side by side on the same features. The
    best one on a held-out part of data.train gives the result. null: the published rate
    (0.05 with LARS, 0.01 with SGD) and 3, 10, 30, ... times as much, further up the fewer images
    times epochs there are compared with the published run.
    Unit: learning rate. Try: null; linear.mode=published for the published rate alone."""

    min_lr: fields.MinLR = 1e-6

    held_out_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of data.train that chooses the best of several learning rates (trained) or penalties
    (fast); at most 10,000 images. The result is of classifiers trained on all of data.train.
    Unit: share. Try: 0.1."""


class SemiSettings(fields.Section):
    """Fine-tuning of the whole network with few labels (choose them with data.subset)."""

    head: Literal["auto", "projection", "linear"] = "auto"
    """The classifier. projection: the hidden layers of the DINO projection head, followed by a new linear
    layer, as published. linear: a new linear layer on the backbone alone. auto: projection if the
    checkpoint has such a head with batch norm, else linear; the result says which.
    Unit: name. Try: auto, with a checkpoint; an export has no head."""

    epochs: fields.PositiveInt | None = None
    """Length of the fine-tuning; null: 60 below 5 % of the labels, else 30, as published for 1 % and 10 %.
    Unit: passes over the selected images. Try: null."""

    batch_size: fields.PositiveInt | None = None
    """Images in one step, over all devices; null: 1024, as published, but fewer if the run would have less than the
    720 steps of the published run with 1 % of ImageNet's labels, and at least 16. Unit: images. Try: null."""

    lr: fields.PositiveFloat = 0.03
    """Learning rate for 256 images per step.
    Unit: learning rate. Try: 0.03, as published; 0.01 and 0.1 if the set is unlike ImageNet."""

    head_lr_factor: fields.PositiveFloat = 1.0
    """Factor on the learning rate for the whole classifier, including carried-over layers.
    Unit: factor. Try: 1, as published; 5 or 10 with a new linear head."""

    min_lr: fields.MinLR = 1e-6


class EvaluateSettings(fields.Section):
    """Everything that determines an evaluation."""

    protocol: Literal["knn", "linear", "semi"]
    """What to measure: knn, linear or semi (the first word of the command).
    Unit: name. Try: knn first, it takes a minute."""

    model: fields.TextPath
    """The backbone (the second word of the command): a run folder, an export or checkpoint of this program, a
    .pth.tar of the original implementation, ``timm:NAME`` for a new timm network,
    ``timm:NAME@FILE`` for any weights file, ``timm:NAME.TAG`` or ``hf-hub:OWNER/NAME`` for public weights.
    Unit: path or name. Try: runs/first/backbone.safetensors."""

    network: fields.Network = "student"

    output: fields.FilePath | None = None
    """Folder for results.json and the other results. null: a folder named after protocol and settings in
    ``evaluation`` next to the checkpoint (timm models: in the current folder). Unit: path. Try: null."""

    cache: fields.FilePath | None = None
    """Folder for cached features, so a second protocol or a repeat does not need the backbone; all
    processes must see it. null: ``sslight/features`` in the user's cache folder.
    Unit: path. Try: a local disk with space; each number takes 4 bytes."""

    image_size: fields.Side | None = None
    """Side of the center crop; null: that of the global views in pre-training (for timm models: their
    own). Unit: px. Try: null."""

    resize: fields.Side | None = None
    """Shorter side to which images are resized before the center crop; null: 256 / 224 of image_size.
    Unit: px. Try: null; image_size to use whole square images."""

    devices: fields.Devices = "auto"

    precision: Annotated[Literal["32", "bf16"], BeforeValidator(fields.as_text)] = "32"
    """Precision of the backbone: 32 (float32, as published) or bf16 (mixed).
    Unit: name. Try: bf16 on recent GPUs for long evaluations."""

    workers: fields.Workers | None = None
    """Processes that decode images, per computing process; null: none on a CPU, else the machine's cores divided
    by its computing processes. Unit: processes. Try: null."""

    feature_batch_size: fields.PositiveInt = 256
    """Images that pass through the frozen backbone at once, per device; does not affect results.
    Unit: images. Try: more on large GPUs, less when memory runs out."""

    seed: fields.Seed = 0
    """Seed of everything random: new layers, crops, order, held-out part.
    Unit: none. Try: several, to see how much results vary."""

    resume: fields.Resume = "auto"
    """Continue an interrupted linear (not fast) or semi evaluation in its folder; auto: continue from the last
    checkpoint if there is one, else start.
    Unit: true, false or auto. Try: auto; the same command then continues."""

    log_every: fields.LogEvery = 20
    logger: fields.Logger = ["none"]
    data: EvaluateDataSettings = EvaluateDataSettings()
    knn: KNNSettings = KNNSettings()
    linear: LinearSettings = LinearSettings()
    semi: SemiSettings = SemiSettings()
    checkpoint: RestartSettings = RestartSettings()
    explained_by: ClassVar[str] = "sslight config evaluate.{key}"

    def without_effect(self) -> list[tuple[str, bool, str]]:
        """See :class:`Section`."""
        linear = self.linear
        of_trained = "linear.epochs linear.batch_size linear.optimizer linear.lr linear.min_lr"
        of_training = "resume checkpoint. log_every logger"
        one_rate = linear.mode == "published" or (linear.lr is not None and len(linear.lr) == 1)
        return [
            *((f"{name}.", name != self.protocol, f"the protocol is {self.protocol}") for name in PROTOCOLS),
            (of_trained, linear.mode == "fast", "linear.mode=fast is logistic regression, which has no such setting"),
            (
                of_trained,
                linear.mode == "published",
                "linear.mode=published has it as published; use linear.mode=trained",
            ),
            ("linear.held_out_share", one_rate, "there is only one learning rate, so there is nothing to choose"),
            ("cache", self.protocol == "semi", "semi keeps no features"),
            (of_training, not self.trains, "nothing is trained in steps"),
            ("network", fields.is_new_network(self.model), "a timm model is one network"),
            (
                "data.labels_column data.multi_label",
                not (self.data.labels or self.data.val_labels),
                "no table of labels is given",
            ),
            ("data.multi_label", self.data.multi_label is True, "only sslight finetune takes several labels an image"),
            ("data.subset_seed", not isinstance(self.data.subset, float), "data.subset is not a share such as 0.1"),
        ]

    @property
    def trains(self) -> bool:
        """Whether something is trained in steps, so that there is a run to log, keep and continue."""
        return self.protocol == "semi" or (self.protocol == "linear" and self.linear.mode != "fast")

    @model_validator(mode="after")
    def _rules_between_settings(self) -> Self:
        if self.resize is not None and self.image_size is not None and self.resize < self.image_size:
            raise ValueError(
                f"resize={self.resize} is smaller than image_size={self.image_size}: resize to at least that"
            )
        return self
