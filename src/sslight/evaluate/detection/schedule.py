"""The published lengths and rates of detection training, for any batch and length."""

from dataclasses import dataclass

from torch import nn
from torch.optim import SGD, Optimizer

from sslight.config import DetectSettings
from sslight.optim import multistep_schedule, set_rates

_PUBLISHED_BATCH = 16
_MOMENTUM, _GAMMA, _WARMUP_START = 0.9, 0.1, 0.001
_MOST_WARMUP = 0.1


@dataclass(frozen=True)
class _Published:
    """Steps at batch 16, the shares of the run at which the rate falls, steps of warm-up, shorter sides in px."""

    steps: int
    milestones: tuple[float, float]
    warmup_steps: int
    smallest_size: int


_PUBLISHED = {
    "coco": _Published(90_000, (60 / 90, 80 / 90), 1000, 640),
    "voc": _Published(24_000, (18 / 24, 22 / 24), 100, 480),
}


@dataclass(frozen=True)
class DetectionSchedule:
    """The learning rate at every step, and the sizes of the images."""

    total_steps: int
    peak: float  # learning rate after the linear warm-up
    milestones: tuple[int, ...]  # steps at which it falls to a tenth
    warmup_steps: int
    train_sizes: tuple[int, ...]  # of the shorter side, px

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return multistep_schedule(
            step,
            base=self.peak,
            milestones=self.milestones,
            gamma=_GAMMA,
            warmup_steps=self.warmup_steps,
            warmup_start=_WARMUP_START * self.peak,
        )


def detection_schedule(settings: DetectSettings, kind: str) -> DetectionSchedule:
    """The schedule for a ``coco`` or ``voc`` set; ValueError if the warm-up is not shorter than the run."""
    published = _PUBLISHED[kind]
    times = 1 if settings.schedule == "1x" else 2
    total = settings.steps or round(times * published.steps * _PUBLISHED_BATCH / settings.batch_size)
    warmup = settings.warmup_steps
    if warmup is None:
        warmup = min(published.warmup_steps, int(_MOST_WARMUP * total))
    elif warmup >= total:
        raise ValueError(
            f"warmup_steps={warmup} is not shorter than the run of {total} steps: set warmup_steps={total // 10}."
        )
    return DetectionSchedule(
        total_steps=total,
        peak=settings.lr * settings.batch_size / _PUBLISHED_BATCH,
        milestones=tuple(round(share * total) for share in published.milestones),
        warmup_steps=warmup,
        train_sizes=tuple(settings.train_sizes or range(published.smallest_size, 801, 32)),
    )


def detection_optimizer(detector: nn.Module, weight_decay: float) -> Optimizer:
    """SGD with momentum 0.9; norm layers do not decay, all else does, biases included."""
    norm_layers = nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm
    norms = {p for module in detector.modules() if isinstance(module, norm_layers) for p in module.parameters(False)}
    trained = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p not in norms], "lr_factor": 1.0, "weight_decay_factor": 1.0},
        {"params": [p for p in trained if p in norms], "lr_factor": 1.0, "weight_decay_factor": 0.0},
    ]
    optimizer = SGD([group for group in groups if group["params"]], lr=0.0, momentum=_MOMENTUM)
    set_rates(optimizer, lr=0.0, weight_decay=weight_decay)
    return optimizer
