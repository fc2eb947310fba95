"""Self-supervised methods: networks and losses as in their papers."""

from sslight.methods.build import build_method
from sslight.methods.dino import DINO, dino_loss, dino_pair_means, dino_targets, update_center
from sslight.methods.heads import DINOHead, WeightNormLinear, projection_mlp
from sslight.methods.method import Method, StepOutput, StepValues

__all__ = [
    "DINO",
    "DINOHead",
    "Method",
    "StepOutput",
    "StepValues",
    "WeightNormLinear",
    "build_method",
    "dino_loss",
    "dino_pair_means",
    "dino_targets",
    "projection_mlp",
    "update_center",
]
