"""Self-supervised methods: networks and losses as in their papers."""

from sslight.methods.build import build_method
from sslight.methods.dino import DINO, dino_loss, dino_pair_means, dino_targets, update_center
from sslight.methods.heads import DINOHead, WeightNormLinear, projection_mlp
from sslight.methods.method import Method, StepOutput, StepValues
from sslight.methods.moco import MoCo, moco_logits, moco_loss, moco_view_losses
from sslight.methods.swav import SwAV, SwAVHead, sinkhorn, swav_loss, swav_pair_means

__all__ = [
    "DINO",
    "DINOHead",
    "Method",
    "MoCo",
    "StepOutput",
    "StepValues",
    "SwAV",
    "SwAVHead",
    "WeightNormLinear",
    "build_method",
    "dino_loss",
    "dino_pair_means",
    "dino_targets",
    "moco_logits",
    "moco_loss",
    "moco_view_losses",
    "projection_mlp",
    "sinkhorn",
    "swav_loss",
    "swav_pair_means",
    "update_center",
]
