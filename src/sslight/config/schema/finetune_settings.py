"""The typed settings of fine-tuning; ``sslight config finetune`` prints the docstrings below the fields."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sslight.config.schema import fields
from sslight.config.schema.evaluate_settings import EvaluateDataSettings
from sslight.config.schema.training_settings import RestartSettings

BEGINNINGS = {"regression": "logistic regression", "random": "untrained"}
"""What a classifier is before its first step, in words, by ``head_init``."""


class FinetuneSettings(fields.Section):
    """Everything that determines a fine-tuned classifier."""

    model: fields.TextPath
    """The backbone to start from (the first word of the command), named as in sslight evaluate knn.
    Unit: path or name. Try: runs/first; timm:NAME with init=random to compare with training from scratch."""

    network: fields.Network = "student"

    init: Literal["weights", "random"] = "weights"
    """Initial weights of the backbone. weights: those of the checkpoint. random: new ones, drawn with seed.
    Unit: name. Try: weights; random to see what pre-training gains."""

    output: fields.FilePath | None = None
    """The run folder, with classifier.safetensors and results.json at the end. Must be set.
    Unit: path. Try: runs/classifier."""

    holdout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of data.train, by class, that is held out. It chooses the epoch whose weights are kept: the last
    one within one standard error of the best. 0 trains on everything and keeps the last epoch.
    Unit: share. Try: 0.1; 0 with fewer than about twenty images per class, once the other settings are settled."""

    epochs: fields.PositiveInt | None = None
    """Length of the training; null: 1500 steps, but at least 10 and at most 100 epochs.
    Unit: passes over the training images. Try: null; a few for a first look."""

    batch_size: fields.PositiveInt | None = None
    """Images in one step, over all devices; null: 64, but at most an eighth of the training images. Those left over
    at the end of an epoch, others in each, have no step. Unit: images. Try: null."""

    lr: fields.PositiveFloat | None = None
    """Peak learning rate of the backbone (AdamW); it rises in the first twentieth of the run and falls on a cosine.
    null: 0.001 for new weights and those that this program pre-trained from new ones, 0.0003 for public weights and
    what was made from them or by fine-tuning. Unit: learning rate. Try: null; 0.0003 for ViTs."""

    head_init: Literal["regression", "random"] | None = None
    """Where the new layer starts. regression: as logistic regression on the features of (at most 50,000 of) the images,
    as in Kumar et al., ICLR 2022, so that the first steps do not spoil the backbone. random: small random weights.
    null: regression for public weights and what was made from them or by fine-tuning. Unit: name. Try: null."""

    freeze_norms: bool | None = None
    """Use and keep the statistics that the backbone's batch norms came with, instead of those of each batch.
    null: true for public weights and what was made from them or by fine-tuning. Unit: true or false. Try: null."""

    head_lr_factor: fields.PositiveFloat = 1.0
    """Factor on the learning rate for the new layer. Unit: factor. Try: 1; 10."""

    weight_decay: fields.NonNegativeFloat = 0.05
    """Weight decay, except for biases and norm layers. Unit: per step, times lr. Try: 0.05."""

    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of a label that is spread over all classes. Unit: share. Try: 0.1; 0 for unsmoothed probabilities."""

    crop_scale: fields.AreaShares = (0.08, 1.0)
    """Area of the random crops in training. Unit: share of the image. Try: [0.3, 1] if details matter."""

    balance: bool = False
    """Weight images so that every class counts the same in the loss, regardless of its number of images.
    Unit: true or false. Try: true if rare classes matter as much as frequent ones."""

    image_size: fields.Side | None = None
    """Side of the classifier's input; null: that of pre-training (for new networks: their own, or that of
    the images if they are smaller). Unit: px. Try: null."""

    resize: fields.Side | None = None
    """Shorter side to which images are resized before the center crop; null: 256 / 224 of image_size.
    Unit: px. Try: null; image_size to use whole square images."""

    data: EvaluateDataSettings = EvaluateDataSettings()

    devices: fields.Devices = "auto"

    precision: Annotated[Literal["32", "bf16", "16"], BeforeValidator(fields.as_text)] = "32"
    """Precision of the network: 32 (float32), bf16 or 16 (mixed). Unit: name. Try: bf16 on recent GPUs."""

    workers: fields.Workers | None = None
    """Processes that decode and resize, per training process; null: none on a CPU, else the machine's cores
    divided by its training processes. Unit: processes. Try: null."""

    seed: fields.Seed = 0
    """Seed of the new layer, crops, order and held-out part. Unit: none. Try: several, to see how much results vary."""

    resume: fields.Resume = "auto"
    """Continue the run in the folder output from its last checkpoint; auto: continue if there is one, else start.
    Unit: true, false or auto. Try: auto; the same command then continues."""

    log_every: fields.LogEvery = 20
    logger: fields.Logger = ["tensorboard"]
    checkpoint: RestartSettings = RestartSettings()
    explained_by: ClassVar[str] = "sslight config finetune.{key}"

    def without_effect(self) -> list[tuple[str, bool, str]]:
        """See :class:`Section`."""
        tables = self.data.labels or self.data.val_labels
        return [
            ("network", fields.is_new_network(self.model), "a timm model is one network"),
            ("network", self.init == "random", "init=random takes no weights"),
            ("data.labels_column data.multi_label", not tables, "no table of labels is given"),
            ("data.subset_seed", not isinstance(self.data.subset, float), "data.subset is not a share such as 0.1"),
        ]

    @model_validator(mode="after")
    def _rules_between_settings(self) -> Self:
        if fields.is_new_network(self.model) and "." not in self.model and self.init == "weights":
            raise ValueError(
                f"model={self.model} is a network without weights: add init=random to train it from scratch, "
                f"or name public weights, as in {self.model}.TAG, or a file, as in {self.model}@FILE"
            )
        if self.freeze_norms and self.init == "random":
            raise ValueError(
                "freeze_norms=true keeps the statistics of batch norms, but init=random has none yet: leave it out"
            )
        return self
