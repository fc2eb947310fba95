"""Optimizers, parameter groups, schedules and gradient clipping."""

from sslight.optim.build import build_optimizer, check_optimizer, clip_gradients, set_rates
from sslight.optim.groups import ParameterGroup, classification_groups, parameter_groups
from sslight.optim.lars import LARS
from sslight.optim.schedules import cosine_schedule, linear_warmup, multistep_schedule

__all__ = [
    "LARS", "ParameterGroup", "build_optimizer", "check_optimizer", "classification_groups", "clip_gradients",
    "cosine_schedule", "linear_warmup", "multistep_schedule", "parameter_groups", "set_rates",
]  # fmt: skip
