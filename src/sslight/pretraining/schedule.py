"""Every scheduled value of a run as a function of its step."""

from dataclasses import dataclass
from typing import NamedTuple

from sslight.config import PretrainSettings
from sslight.methods import StepValues
from sslight.optim import cosine_schedule, linear_warmup, multistep_schedule


@dataclass(frozen=True)
class RunLength:
    """Steps of an epoch (complete global batches) and of the whole run."""

    steps_per_epoch: int
    total_steps: int

    def in_steps(self, epochs: float) -> int:
        """A length in epochs, whole or in parts, as steps."""
        return round(epochs * self.steps_per_epoch)


def run_length(settings: PretrainSettings, steps_per_epoch: int) -> RunLength:
    """The length of a run on a set with that many steps an epoch.

    Raises ValueError if the warm-up of the learning rate, or the part with a frozen backbone, is not shorter.
    """
    total = settings.steps if settings.steps is not None else (settings.epochs or 0) * steps_per_epoch
    length = RunLength(steps_per_epoch, total)
    parts = {
        "optim.warmup_epochs": (settings.optim.warmup_epochs, 0.05),
        "freeze_backbone_epochs": (settings.freeze_backbone_epochs, 1 / 3),
    }
    for name, (epochs, share) in parts.items():
        if (steps := length.in_steps(epochs)) >= total:
            raise ValueError(
                f"{name}={epochs:g} is {steps} steps of {steps_per_epoch} an epoch, not shorter than the run of "
                f"{total} steps: set {name}={share * total / steps_per_epoch:.3g}."
            )
    return length


class Rates(NamedTuple):
    """Learning rate and weight decay of one step."""

    lr: float
    weight_decay: float


def rates_at(step: int, settings: PretrainSettings, length: RunLength) -> Rates:
    """Learning rate and weight decay of a step, counted from 0.

    The peak rate is lr · batch_size / 256 (Goyal et al., 2017); its minimum and the start of the
    warm-up are absolute.
    """
    optim = settings.optim
    peak = settings.lr * settings.batch_size / 256
    warmup_steps = length.in_steps(optim.warmup_epochs)
    match optim.schedule:
        case "cosine":
            lr = cosine_schedule(
                step,
                base=peak,
                final=optim.min_lr,
                total_steps=length.total_steps,
                warmup_steps=warmup_steps,
                warmup_start=optim.warmup_start,
            )
        case "multistep":
            lr = multistep_schedule(
                step,
                base=peak,
                milestones=[length.in_steps(epoch) for epoch in optim.milestones],
                gamma=optim.gamma,
                warmup_steps=warmup_steps,
                warmup_start=optim.warmup_start,
            )
    decay = optim.weight_decay
    if optim.weight_decay_final is not None:
        decay = cosine_schedule(step, base=decay, final=optim.weight_decay_final, total_steps=length.total_steps)
    return Rates(lr, decay)


def values_at(step: int, settings: PretrainSettings, length: RunLength) -> StepValues:
    """What the method's forward and update take at a step, counted from 0."""
    match settings.method:
        case "dino":
            dino = settings.dino
            return StepValues(
                momentum=cosine_schedule(step, base=dino.teacher_momentum, final=1.0, total_steps=length.total_steps),
                teacher_temp=linear_warmup(
                    step // length.steps_per_epoch,
                    start=dino.warmup_teacher_temp,
                    end=dino.teacher_temp,
                    num_steps=dino.warmup_teacher_temp_epochs,
                ),
                freeze_last_layer=step < length.in_steps(dino.freeze_last_layer_epochs),
            )
        case "swav":
            swav = settings.swav
            return StepValues(
                freeze_last_layer=step < length.in_steps(swav.freeze_prototypes_epochs),
                use_queue=step >= length.in_steps(swav.queue_start_epoch),
            )
        case "moco":
            return StepValues(momentum=settings.moco.key_momentum)
