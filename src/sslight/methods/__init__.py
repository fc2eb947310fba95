"""Self-supervised methods: networks and losses as in their papers."""

from sslight.methods.build import build_method, save_memory
from sslight.methods.dino import DINO, dino_loss, dino_pair_means, dino_targets, update_center
from sslight.methods.heads import DINOHead, SwAVHead, WeightNormLinear, projection_mlp
from sslight.methods.koleo import koleo_loss
from sslight.methods.method import Method, StepOutput, StepValues
from sslight.methods.moco import MoCo, moco_logits, moco_loss, moco_pair_means
from sslight.methods.network import Network
from sslight.methods.swav import SwAV, sinkhorn, swav_loss, swav_pair_means

__all__ = [
    "DINO", "DINOHead", "Method", "MoCo", "Network", "StepOutput", "StepValues", "SwAV", "SwAVHead",
    "WeightNormLinear", "build_method", "dino_loss", "dino_pair_means", "dino_targets", "koleo_loss", "moco_logits",
    "moco_loss", "moco_pair_means", "projection_mlp", "save_memory", "sinkhorn", "swav_loss", "swav_pair_means",
    "update_center",
]  # fmt: skip
