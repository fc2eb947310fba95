"""The typed settings of a pre-training run: names, units, defaults and rules.

Every docstring below a field is what ``sslight config KEY`` prints. Defaults are those of the
published DINO recipe for CNNs where the paper has the setting.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sslight.config.schema import fields
from sslight.config.schema.method_settings import DINOSettings, MoCoSettings, SwAVSettings
from sslight.config.schema.training_settings import CheckpointSettings, OptimSettings


class DataSettings(fields.Section):
    """Which images are used, and how they are read."""

    train: fields.Paths = []
    """Images to train on: a folder of class folders, a folder without classes (flat or nested), an H5 file, tar shards
    (a folder of them, one, or ``shard-{000..009}.tar``, also ``https://...``), or ``synthetic:N`` for N drawn shapes; a
    list joins several. Unit: path(s). Try: the folder with all your images; labels are not needed."""

    val: fields.Paths = []
    """Labeled images for measuring kNN accuracy during training: against probe.train, or against
    data.train if its folders are the same classes; else each against all others of data.val.
    Unit: path(s). Try: a few thousand images."""

    subset: fields.Subset = None
    labels: fields.LabelTable = None
    val_labels: fields.LabelTable = None
    labels_column: fields.LabelsColumn = None
    multi_label: fields.MultiLabel = None
    subset_seed: fields.SubsetSeed = 0
    tar_image: fields.TarImage = None
    max_bad_share: fields.MaxBadShare = 0.01
    max_pixels: fields.MaxPixels = fields.MAX_PIXELS

    order: Literal["global", "blocks"] = "global"
    """Order of the images in an epoch. global: any image after any other. blocks: shards in random order, and the
    images of data.window shards at a time in random order, so that shards in a store are read whole; only for tar
    shards, which must be mixed as ``sslight data pack`` does it. Unit: order. Try: blocks for shards in a store."""

    window: fields.PositiveInt = 16
    """Shards whose images are mixed with data.order=blocks.
    Unit: shards. Try: as many as make 40,000 images; more if your shards are of one kind each."""

    cache_gb: fields.NonNegativeFloat = 32.0
    """Most bytes of remote shards that are copied to this machine with data.order=blocks, into the user's cache
    (``XDG_CACHE_HOME`` moves it to another disk); 0 copies none.
    Unit: GB. Try: two windows of shards at least; all shards if they fit, then later epochs need no network."""

    scaled_decoding: bool = False
    """Decode JPEGs at a half, a quarter or an eighth of their size, as long as no crop has fewer pixels than its view.
    Views then differ by 3 of 255 gray levels on average, and damage is only noticed if the end of a file is missing.
    Unit: true or false. Try: true for photographs of 10 megapixels and more, if loading is too slow."""

    read_timeout: fields.ReadTimeout = fields.READ_TIMEOUT


class ViewSettings(fields.Section):
    """How views are cut and augmented."""

    num_global: Annotated[int, Field(ge=2)] = 2
    """Global (large) views per image. Unit: views. Try: 2, as in all published recipes."""

    num_local: fields.NonNegativeInt = 6
    """Local (small) views per image; 0 trains on global views only.
    Unit: views. Try: 6 for CNNs, 10 for ViTs; fewer are faster and a little less accurate."""

    global_size: fields.Side = 224
    """Side of a global view. Unit: px. Try: the size at which the network will be used."""

    local_size: fields.Side = 96
    """Side of a local view. Unit: px. Try: 128 at 224 px global views (SSLight), so objects have about the same size
    in both kinds of view; a multiple of the patch size for ViTs."""

    global_scale: fields.AreaShares = (0.14, 1.0)
    """Smallest and largest share of the image area in a global view.
    Unit: share of the area. Try: [0.3, 1.0] (SSLight)."""

    local_scale: fields.AreaShares = (0.05, 0.14)
    """Smallest and largest share of the image area in a local view.
    Unit: share of the area. Try: [0.05, 0.3] (SSLight)."""

    aspect_ratio: fields.Interval = (3 / 4, 4 / 3)
    """Narrowest and widest crop, as width over height. Unit: ratio. Try: [0.75, 1.3333], as published."""

    flip_prob: fields.Probability = 0.5
    """Probability that a view is mirrored left to right.
    Unit: probability. Try: 0 where left and right differ in meaning (text, digits)."""

    jitter: fields.Jitter = (0.4, 0.4, 0.2, 0.1)
    """Strength of the color jitter: brightness, contrast, saturation (factors are drawn from
    1 ± value, not below 0) and hue (drawn from ± value of the color circle, at most 0.5).
    Unit: factor, factor, factor, turns. Try: smaller values if color carries meaning."""

    jitter_prob: fields.Probability = 0.8
    """Probability of color jitter. Unit: probability. Try: 0.8, as published."""

    grayscale_prob: fields.Probability = 0.2
    """Probability that a view becomes gray. Unit: probability. Try: 0 if color carries meaning."""

    blur_prob: tuple[fields.Probability, fields.Probability, fields.Probability] = (1.0, 0.1, 0.5)
    """Probability of a Gaussian blur: first global view, other global views, local views.
    Unit: probability. Try: lower values for small or low-resolution images."""

    blur_sigma: fields.Interval = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur. Unit: px. Try: at most 1 for 32–64 px views."""

    solarize_prob: tuple[fields.Probability, fields.Probability] = (0.0, 0.2)
    """Probability of inverting the pixels of 128 and above: first global view, other global views.
    Unit: probability. Try: [0, 0] for medical and other measured images."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Mean of the red, green and blue channel (of 0–1), subtracted on the device.
    Unit: share of full scale. Try: ImageNet's, unless your pixels are very unlike photographs."""

    std: tuple[fields.PositiveFloat, fields.PositiveFloat, fields.PositiveFloat] = (0.229, 0.224, 0.225)
    """Standard deviation of the channels; the device divides by it.
    Unit: share of full scale. Try: ImageNet's, unless your pixels are very unlike photographs."""


class ProbeSettings(fields.Section):
    """What is measured with labels during training; none of it changes the backbone."""

    linear: bool = False
    """Also train a linear classifier on the detached features (needs labels in data.train).
    Unit: true or false. Try: true, it costs almost nothing."""

    train: fields.Paths = []
    """Labeled images to use instead of data.train for the kNN bank and the linear accuracy.
    Unit: path(s). Try: labeled images with the classes of data.val, if data.train has no labels."""

    knn: bool | None = None
    """Measure kNN accuracy at the end of epochs. null: only if data.val or probe.train is given. Without
    data.val, the images of the bank classify each other, leave-one-out.
    Unit: true, false or null. Try: null."""

    knn_k: fields.PositiveInt = 20
    """Number of neighbors that vote. Unit: images. Try: 20 (200 for large sets), as published."""

    knn_temperature: fields.KNNTemperature = 0.07

    knn_bank: fields.PositiveInt = 10_000
    """Largest number of images in the kNN bank, drawn with the run's seed and
    stratified by class.
    Unit: images. Try: more for a less noisy accuracy, but longer epoch ends."""

    every_epochs: fields.PositiveInt = 1
    """Epochs between kNN measurements (the last epoch is always measured).
    Unit: epochs. Try: 5 for long runs."""


class PretrainSettings(fields.Section):
    """Everything that determines a pre-training run."""

    method: Literal["dino", "swav", "moco"] = "dino"
    """The self-supervised method. Unit: name. Try: dino, the best of the three for small networks in the paper; moco
    for MobileNetV2s in short runs."""

    backbone: str = "mobilenet_v2"
    """The network to pre-train: mobilenet_v2, resnet18, resnet34, resnet50, vit_tiny or any timm name.
    Unit: name. Try: the network that will run on your device."""

    patch_size: fields.PositiveInt | None = None
    """Patch size of a ViT backbone; null keeps the architecture's own. Unit: px. Try: 4 or 8 for 64 px images."""

    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Highest rate of stochastic depth in the student; it rises linearly over the blocks.
    Unit: probability. Try: 0.1 for ViTs, 0 for CNNs."""

    init: Literal["standard", "smooth"] = "standard"
    """Initialization of the backbone: standard (torchvision's or timm's), or smooth: networks of inverted
    residual blocks (MobileNetV2 and V3, EfficientNet) start near mean filters and with empty residual branches; others
    are always standard. Unit: name. Try: smooth for MobileNetV2 in runs of few epochs."""

    epochs: fields.PositiveInt | None = 200
    """Length of the run; give either epochs or steps.
    Unit: passes over data.train. Try: 200, as published; more for small sets."""

    steps: fields.PositiveInt | None = None
    """Length of the run in optimizer steps, instead of epochs.
    Unit: steps. Try: 100 to see whether everything works."""

    batch_size: Annotated[int, Field(ge=2)] = 1024
    """Images in one optimizer step, over all devices and all accumulated parts.
    Unit: images. Try: 256–1024; the learning rate scales with it."""

    accumulate: fields.PositiveInt = 1
    """Number of parts in which a device processes its share of the batch, one by one, to save memory. Each part has its
    own batch-norm statistics. Unit: parts. Try: 2, 4, ... when memory runs out."""

    lr: fields.PositiveFloat = 0.48
    """Peak learning rate for 256 images per step; the rate used is lr · batch_size / 256.
    Unit: learning rate. Try: the recipe's; a third of it if the loss jumps."""

    seed: fields.Seed = 0
    """Seed of weights, order, views and everything else that is random.
    Unit: none. Try: several, to see how much results vary."""

    output: fields.FilePath | None = None
    """The run folder for settings, metrics, checkpoints and the backbone. Unit: path. Try: runs/NAME."""

    resume: fields.Resume = False
    """Continue the run in the folder output from its last checkpoint. auto continues if there is a
    checkpoint and starts otherwise, so the first start and every restart are the same command.
    Unit: true, false or auto. Try: true after an interruption; auto under torchrun and SLURM."""

    init_from: fields.FilePath | None = None
    """Weights to start a new run from: a run folder, an export, a checkpoint, any weights file of the same network,
    or public ones: timm:NAME or hf-hub:OWNER/NAME, which are downloaded once.
    Unit: path or name. Try: runs/first; timm:resnet18."""

    freeze_backbone_epochs: fields.NonNegativeFloat = 0
    """Epochs in which only the head is trained, so that a new head does not spoil the loaded weights of init_from.
    Unit: epochs, also fractions. Try: 0; a third of a short run if accuracy falls at the start."""

    freeze_norms: bool = False
    """Use and keep the statistics of the backbone's batch norms that were loaded with init_from, instead of those of
    each batch: views that are blurred or enlarged have others, for which the loaded weights were not made.
    Unit: true or false. Try: true with public weights."""

    devices: fields.Devices = "auto"

    precision: Annotated[Literal["32", "bf16", "16", "auto"], BeforeValidator(fields.as_text)] = "32"
    """Precision of the network: 32 (float32, as published), bf16 or 16 (mixed), or auto for the fastest on this device;
    losses and the heads' last layers stay in float32. Unit: name. Try: auto."""

    compile: bool | Literal["reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = False
    """Compile the backbones with torch.compile, which fuses their small operations, or in another of its modes; the
    first steps take longer. Only for GPUs: it does not help on a CPU, nor with batch norms that several GPUs
    synchronize. Unit: true, false or mode. Try: true for runs of an hour and more on a GPU; reduce-overhead for small
    batches."""

    grad_checkpointing: bool | Literal["norms", "auto"] = False
    """Keep only some of the student's activations and compute the others again in the backward pass: the same result
    with less memory. norms computes norms and activations again, for a third to a half less memory of a MobileNetV2 and
    a tenth more time; true all that is within a block, for still less, about a quarter slower; auto takes the first of
    false, norms and true that fits into free memory. Unit: true, false, norms or auto. Try: auto; it keeps the
    batch-norm statistics of the whole batch, which accumulate does not."""

    workers: fields.Workers | None = None
    """Processes that decode and augment, per training process; null: the machine's cores
    divided by its training processes, minus one.
    Unit: processes. Try: null; 0 loads in the training process, for debugging."""

    profile: fields.PositiveInt | None = None
    """Steps whose operations are written to trace.json in the run folder, for chrome://tracing or Perfetto, once ten
    steps are done; these are slower. Unit: steps. Try: null; 5 to see what holds a GPU up."""

    log_every: fields.LogEvery = 10
    logger: fields.Logger = ["tensorboard"]

    global_pair_weight: fields.Probability | None = None
    """Weight of the global–global pairs of views in the loss; the global–local pairs get the rest. null: the plain
    mean over all pairs. Unit: share. Try: 0.4 (SSLight)."""

    data: DataSettings = DataSettings()
    views: ViewSettings = ViewSettings()
    probe: ProbeSettings = ProbeSettings()
    optim: OptimSettings = OptimSettings()
    dino: DINOSettings = DINOSettings()
    swav: SwAVSettings = SwAVSettings()
    moco: MoCoSettings = MoCoSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    explained_by: ClassVar[str] = "sslight config {key}"

    @property
    def beginning(self) -> str:
        """What the network is before its first step, in words."""
        return "untrained" if self.init_from is None else "start weights"

    @property
    def measures_knn(self) -> bool:
        """Whether kNN accuracy is measured: as set, or with labeled images for it."""
        return bool(self.data.val or self.probe.train) if self.probe.knn is None else self.probe.knn

    def without_effect(self) -> list[tuple[str, bool, str]]:
        """See :class:`Section`."""
        optim, probe, swav = self.optim, self.probe, self.swav
        no_knn = not self.measures_knn
        of_knn = "probe.knn_k probe.knn_temperature probe.knn_bank probe.every_epochs"
        of_locals = "global_pair_weight views.local_size views.local_scale"
        return [
            *((f"{name}.", name != self.method, f"method={self.method}") for name in ("dino", "swav", "moco")),
            (of_locals, self.views.num_local == 0, "views.num_local=0"),
            ("init", self.init_from is not None, "the weights are those of init_from"),
            ("freeze_backbone_epochs freeze_norms", self.init_from is None, "there is no init_from"),
            ("optim.momentum", optim.name == "adamw", "AdamW has fixed betas"),
            ("optim.lars_eta", optim.name not in ("lars", "muon"), f"optim.name={optim.name}"),
            ("optim.milestones optim.gamma", optim.schedule != "multistep", f"optim.schedule={optim.schedule}"),
            ("optim.min_lr", optim.schedule != "cosine", f"optim.schedule={optim.schedule}"),
            ("optim.warmup_start", optim.warmup_epochs == 0, "optim.warmup_epochs=0"),
            ("data.window data.cache_gb", self.data.order == "global", "data.order=global"),
            ("data.subset_seed", not isinstance(self.data.subset, float), "data.subset is not a share such as 0.1"),
            ("data.val_labels", not self.data.val, "there is no data.val"),
            (
                "data.labels_column data.multi_label",
                not (self.data.labels or self.data.val_labels),
                "no table of labels is given",
            ),
            ("data.multi_label", self.data.multi_label is True, "only sslight finetune takes several labels an image"),
            (of_knn, no_knn, "no kNN accuracy is measured without data.val, probe.train or probe.knn=true"),
            ("data.val probe.train", probe.knn is False, "probe.knn=false"),
            ("dino.warmup_teacher_temp", not self.dino.warmup_teacher_temp_epochs, "dino.warmup_teacher_temp_epochs=0"),
            ("swav.queue_start_epoch", swav.queue_size == 0, "swav.queue_size=0"),
        ]

    @model_validator(mode="after")
    def _rules_between_settings(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            given = "neither" if self.epochs is None else f"both epochs={self.epochs} and steps={self.steps}"
            raise ValueError(f"{given} given: set one of epochs and steps, and the other to null")
        if self.compile and self.grad_checkpointing in ("norms", "auto"):
            raise ValueError(
                f"grad_checkpointing={self.grad_checkpointing} has no effect on compiled backbones, which compute "
                "cheap results again anyway: set grad_checkpointing=false, or true for a ViT, or leave compile out"
            )
        if self.views.num_local and self.views.local_size > self.views.global_size:
            raise ValueError(
                f"views.local_size={self.views.local_size} is larger than views.global_size="
                f"{self.views.global_size}: local views are the small ones; swap the two"
            )
        if self.epochs is not None and self.optim.warmup_epochs >= self.epochs:
            raise ValueError(
                f"optim.warmup_epochs={self.optim.warmup_epochs:g} is not shorter than epochs={self.epochs}: "
                f"set optim.warmup_epochs={0.05 * self.epochs:g}"
            )
        peak = self.lr * self.batch_size / 256
        if self.optim.schedule == "cosine" and peak <= self.optim.min_lr:
            raise ValueError(
                f"lr · batch_size / 256 = {peak:g} is not above optim.min_lr={self.optim.min_lr:g}, to which it "
                f"should fall: set optim.min_lr={peak / 100:g}, or a higher lr"
            )
        if self.optim.schedule == "multistep" and not self.optim.milestones:
            raise ValueError("optim.schedule=multistep needs optim.milestones: a list of epochs, such as [60, 80]")
        if self.method == "swav" and 0 < self.swav.queue_size < self.batch_size:
            raise ValueError(
                f"swav.queue_size={self.swav.queue_size} is smaller than the global batch {self.batch_size}: "
                f"set 0 for no queue, or {self.batch_size} or more"
            )
        if self.method == "moco":
            self._check_moco()
        return self

    def _check_moco(self) -> None:
        if self.views.num_global != 2:
            raise ValueError(
                f"views.num_global={self.views.num_global}, but MoCo takes one global view for the key and one as a "
                f"query: set views.num_global=2"
            )
        size, batch = self.moco.queue_size, self.batch_size
        if size % batch:
            sizes = [n for n in (size // batch * batch, (size // batch + 1) * batch) if n]
            nearest = f"sizes are {sizes[0]} and {sizes[1]}" if len(sizes) == 2 else f"size is {sizes[0]}"
            raise ValueError(
                f"moco.queue_size={size} is not a multiple of the global batch {batch}; the nearest {nearest}"
            )
