"""Networks from images to features: timm models by name, and their weights in files."""

from sslight.backbones.build import (
    ALIASES,
    batch_norms,
    build_backbone,
    check_image_size,
    eval_mode,
    num_features,
    patch_side,
    timm_name,
)
from sslight.backbones.checkpointing import checkpoint_gradients, count_statistics_once
from sslight.backbones.class_tokens import PUBLISHED_BLOCKS, LastBlocks, has_class_token
from sslight.backbones.cpu.layers import adopt_cpu_layers, linear, slow_precision
from sslight.backbones.cpu.small_maps import bf16_is_fast_on_cpu
from sslight.backbones.fingerprint import weights_fingerprint
from sslight.backbones.header import further_notes, read_header
from sslight.backbones.hub import find_public, is_public, timm_config
from sslight.backbones.initialization import initialize_smoothly
from sslight.backbones.key_names import TORCHVISION_NAMES
from sslight.backbones.matching import load_strictly
from sslight.backbones.plain_files import load_plain
from sslight.backbones.recomputing import keep_results, norms_computed_again
from sslight.backbones.weights import (
    CHECKPOINT_FORMAT,
    BackboneInfo,
    WeightsFile,
    load_backbone,
    load_backbone_weights,
    open_weights,
    read_backbone_info,
    save_backbone,
)

__all__ = [
    "ALIASES", "CHECKPOINT_FORMAT", "PUBLISHED_BLOCKS", "TORCHVISION_NAMES", "BackboneInfo", "LastBlocks",
    "WeightsFile", "adopt_cpu_layers", "batch_norms", "bf16_is_fast_on_cpu", "build_backbone", "check_image_size",
    "checkpoint_gradients", "count_statistics_once", "eval_mode", "find_public", "further_notes", "has_class_token",
    "initialize_smoothly", "is_public", "keep_results", "linear", "load_backbone", "load_backbone_weights",
    "load_plain", "load_strictly", "norms_computed_again", "num_features", "open_weights", "patch_side",
    "read_backbone_info", "read_header", "save_backbone", "slow_precision", "timm_config", "timm_name",
    "weights_fingerprint",
]  # fmt: skip
