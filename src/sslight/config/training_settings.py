"""The settings of the optimiser, its schedules, and of what a run keeps."""

from typing import Annotated, Literal

from pydantic import Field

from sslight.config.fields import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Section


class OptimSettings(Section):
    """Optimiser and schedules; every schedule moves by step."""

    name: Literal["lars", "adamw", "sgd"] = "lars"
    """The optimiser: lars for CNNs at large batches, adamw for ViTs, sgd.
    Unit: name. Try: the recipe's; adamw is the easier one at batches below 256."""

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of LARS and SGD (AdamW keeps PyTorch's betas 0.9 and 0.999). Unit: share kept a step. Try: 0.9."""

    lars_eta: PositiveFloat = 0.001
    """Trust coefficient of LARS: the step of a tensor is lr · eta · |weights| / |gradient|.
    Unit: ratio. Try: 0.001, as published."""

    weight_decay: NonNegativeFloat = 1e-6
    """Weight decay at the start; biases, norm parameters and depth-wise kernels have none.
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
    Unit: epochs, also parts of one. Try: 5 % of the run."""

    warmup_start: NonNegativeFloat = 0.0
    """Learning rate at the first step of the warm-up; not scaled with the batch. Unit: learning rate. Try: 0."""

    clip_grad: PositiveFloat | None = None
    """Largest L2 norm of each parameter's gradient; null does not clip.
    Unit: gradient norm. Try: 3 for ViTs that diverge."""

    max_skipped_batches: NonNegativeInt = 3
    """Batches that a run leaves out because the loss or the gradient became non-finite on them: it goes back to
    its last checkpoint and passes such a batch by; one more of them, or one before the first checkpoint, ends it.
    Unit: batches. Try: 3; 0 to stop at the first."""


class CheckpointSettings(Section):
    """When the whole state of the run is written to the run folder's checkpoints/, and what is kept."""

    every_steps: PositiveInt | None = None
    """Steps from one write of checkpoints/last.pt to the next; it is always written at epoch ends.
    Unit: steps. Try: null, or a few hundred for epochs of hours."""

    every_minutes: PositiveFloat | None = 30.0
    """Longest time from one write of checkpoints/last.pt to the next; null for epoch ends only.
    Unit: minutes. Try: as much work as you are ready to lose."""

    every_epochs: PositiveInt | None = 20
    """Epochs from one kept checkpoint (checkpoints/epoch_NNNN.pt) to the next; null keeps none.
    Unit: epochs. Try: a tenth of the run."""

    keep_last: PositiveInt = 2
    """Newest checkpoints that are kept: last.pt, last-1.pt, ... A run goes on from the first that is intact.
    Unit: files. Try: 2; 1 only where room is short."""

    keep_best: bool = True
    """Keep the checkpoint of the highest kNN accuracy as best.pt, if kNN accuracy is measured.
    Unit: true or false. Try: true."""
