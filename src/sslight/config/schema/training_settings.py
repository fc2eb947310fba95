"""The settings of the optimizer, its schedules and the checkpoints."""

from typing import Annotated, Literal

from pydantic import Field

from sslight.config.schema.fields import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Section


class OptimSettings(Section):
    """Optimizer and schedules; every schedule moves by step."""

    name: Literal["lars", "muon", "adamw", "sgd"] = "lars"
    """The optimizer: lars for CNNs at large batches; muon, which is lars but for 1×1 convolutions, whose updates it
    makes orthogonal (most of a MobileNet, little of ResNet-18 or 34; not in SSLight); adamw for ViTs; sgd. Unit: name.
    Try: the recipe's; adamw is easier at batches below 256; muon with MoCo for MobileNetV2s in short runs."""

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of LARS, Muon and SGD (AdamW keeps PyTorch's betas 0.9 and 0.999).
    Unit: share kept per step. Try: 0.9."""

    lars_eta: PositiveFloat = 0.001
    """Trust coefficient of LARS and Muon: LARS scales the gradient of a tensor to the length eta · ‖weights‖, and Muon
    moves a kernel by lr · 3 · eta · ‖weights‖.
    Unit: ratio. Try: 0.001, as published."""

    weight_decay: NonNegativeFloat = 1e-6
    """Weight decay at the start; biases, norm parameters, depth-wise kernels and the kernels that Muon moves have none.
    Unit: per step, times lr. Try: 1e-6 with LARS, 0.04 with AdamW."""

    weight_decay_final: NonNegativeFloat | None = None
    """Weight decay at the end of a cosine schedule; null keeps it constant.
    Unit: as optim.weight_decay. Try: 0.4 with AdamW."""

    schedule: Literal["cosine", "multistep"] = "cosine"
    """How the learning rate falls after the warm-up. Unit: name. Try: cosine."""

    min_lr: NonNegativeFloat = 0.0048
    """Learning rate at the end of the cosine schedule; not scaled with the batch.
    Unit: learning rate. Try: a hundredth of lr."""

    milestones: list[PositiveInt] = []
    """Epochs at which the multi-step schedule multiplies the rate by optim.gamma.
    Unit: epochs. Try: 60 % and 80 % of the run."""

    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Factor of the multi-step schedule at each milestone. Unit: factor. Try: 0.1."""

    warmup_epochs: NonNegativeFloat = 10
    """Length of the linear warm-up of the learning rate; must be shorter than the run.
    Unit: epochs, also fractions. Try: 5 % of the run."""

    warmup_start: NonNegativeFloat = 0.0
    """Learning rate at the first step of the warm-up; not scaled with the batch. Unit: learning rate. Try: 0."""

    clip_grad: PositiveFloat | None = None
    """Largest L2 norm of each parameter's gradient; null does not clip.
    Unit: gradient norm. Try: 3 for ViTs that diverge."""

    max_skipped_batches: NonNegativeInt = 3
    """Batches to skip after a non-finite loss or gradient. The run goes back to
    its last checkpoint and skips the batch; one more, or one before the first checkpoint, ends the run.
    Unit: batches. Try: 3; 0 to stop at the first."""


class CheckpointSettings(Section):
    """When the complete state of the run is written to checkpoints/ in the run folder, and what is kept."""

    every_steps: PositiveInt | None = None
    """Steps between writes of checkpoints/last.pt; it is always written at the end of an epoch.
    Unit: steps. Try: null, or a few hundred if epochs take hours."""

    every_minutes: PositiveFloat | None = 30.0
    """Longest time between writes of checkpoints/last.pt; null: only at the end of epochs.
    Unit: minutes. Try: as much work as you can afford to lose."""

    every_epochs: PositiveInt | None = 20
    """Epochs between checkpoints that are kept (checkpoints/epoch_NNNN.pt); null keeps none.
    Unit: epochs. Try: a tenth of the run."""

    keep_last: PositiveInt = 2
    """Number of newest checkpoints to keep: last.pt, last-1.pt, ... A run continues from the first intact one.
    Unit: files. Try: 2; 1 only if disk space is short."""

    keep_best: bool = True
    """Keep the checkpoint with the highest kNN accuracy as best.pt, if kNN accuracy is measured.
    Unit: true or false. Try: true."""


class RestartSettings(Section):
    """When a run other than pre-training writes its state to checkpoints/last.pt; it always does at its end."""

    every_steps: PositiveInt | None = None
    """Steps between writes of checkpoints/last.pt. Unit: steps. Try: null."""

    every_minutes: PositiveFloat | None = 10.0
    """Longest time between writes of checkpoints/last.pt; null: only at the end.
    Unit: minutes. Try: as much work as you can afford to lose."""
