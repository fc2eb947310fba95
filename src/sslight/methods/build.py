"""The method that the settings ask for."""

from torch import nn

from sslight.backbones import (
    adopt_cpu_layers,
    build_backbone,
    check_image_size,
    checkpoint_gradients,
    initialize_smoothly,
    num_features,
)
from sslight.config import PretrainSettings
from sslight.methods.dino import DINO
from sslight.methods.method import Method
from sslight.methods.moco import MoCo
from sslight.methods.swav import SwAV


def build_method(settings: PretrainSettings) -> Method:
    """The method with new weights, on the CPU, in training mode; draws from PyTorch's global random stream.

    A ViT's position embedding is native to ``views.global_size``. Reads no files.

    Raises:
        ValueError: the backbone is unknown, or a view size or another setting does not fit it.
    """
    method = _build(settings)
    adopt_cpu_layers(method)
    return method


def _build(settings: PretrainSettings) -> Method:
    match settings.method:
        case "dino":
            return _build_dino(settings)
        case "swav":
            return _build_swav(settings)
        case "moco":
            return _build_moco(settings)


def _trained_backbone(settings: PretrainSettings) -> nn.Module:
    """The backbone that learns from gradients; it takes views of the asked-for sizes."""
    views = settings.views
    backbone = _backbone(settings, settings.drop_path)
    if settings.init == "smooth":
        initialize_smoothly(backbone)
    check_image_size(backbone, views.global_size, "views.global_size")
    if views.num_local:
        check_image_size(backbone, views.local_size, "views.local_size")
    if settings.grad_checkpointing:
        checkpoint_gradients(backbone, settings.backbone)
    return backbone


def _backbone(settings: PretrainSettings, drop_path: float) -> nn.Module:
    return build_backbone(
        settings.backbone,
        image_size=settings.views.global_size,
        patch_size=settings.patch_size,
        drop_path=drop_path,
    )


def _build_dino(settings: PretrainSettings) -> DINO:
    views, dino = settings.views, settings.dino
    student, teacher = _trained_backbone(settings), _backbone(settings, drop_path=0.0)
    return DINO(
        student,
        teacher,
        num_features=num_features(student),
        num_global=views.num_global,
        num_local=views.num_local,
        head_layers=dino.head_layers,
        head_hidden_dim=dino.head_hidden_dim,
        head_bottleneck_dim=dino.head_bottleneck_dim,
        head_output_dim=dino.head_output_dim,
        head_batch_norm=dino.head_batch_norm,
        norm_last_layer=dino.norm_last_layer,
        student_temp=dino.student_temp,
        center_momentum=dino.center_momentum,
        global_pair_weight=settings.global_pair_weight,
    )


def _build_swav(settings: PretrainSettings) -> SwAV:
    views, swav = settings.views, settings.swav
    backbone = _trained_backbone(settings)
    return SwAV(
        backbone,
        num_features=num_features(backbone),
        num_global=views.num_global,
        num_local=views.num_local,
        head_layers=swav.head_layers,
        head_hidden_dim=swav.head_hidden_dim,
        head_output_dim=swav.head_output_dim,
        num_prototypes=swav.num_prototypes,
        head_batch_norm=swav.head_batch_norm,
        temperature=swav.temperature,
        epsilon=swav.epsilon,
        num_iterations=swav.sinkhorn_iterations,
        queue_size=swav.queue_size,
        global_pair_weight=settings.global_pair_weight,
    )


def _build_moco(settings: PretrainSettings) -> MoCo:
    views, moco = settings.views, settings.moco
    query, key = _trained_backbone(settings), _backbone(settings, drop_path=0.0)
    return MoCo(
        query,
        key,
        num_features=num_features(query),
        num_global=views.num_global,
        num_local=views.num_local,
        head_layers=moco.head_layers,
        head_hidden_dim=moco.head_hidden_dim,
        head_output_dim=moco.head_output_dim,
        head_batch_norm=moco.head_batch_norm,
        temperature=moco.temperature,
        queue_size=moco.queue_size,
        global_pair_weight=settings.global_pair_weight,
    )
