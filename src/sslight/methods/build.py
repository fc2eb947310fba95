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
from sslight.methods.heads import DINOHead, SwAVHead, projection_mlp
from sslight.methods.method import Method
from sslight.methods.moco import MoCo
from sslight.methods.network import Network
from sslight.methods.swav import SwAV


def build_method(settings: PretrainSettings, device_type: str = "cpu") -> Method:
    """The method with new weights, on the CPU, in training mode; draws from PyTorch's global random stream.

    A ViT's position embedding is native to ``views.global_size``. Reads no files.

    Args:
        settings: Of the run.
        device_type: Kind of device on which it will train; the layers that are faster on a CPU are for ``cpu`` only.

    Raises:
        ValueError: the backbone is unknown, or a view size or another setting does not fit it.
    """
    method = _build(settings)
    if device_type == "cpu":
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


def _build_dino(settings: PretrainSettings) -> DINO:
    dino = settings.dino
    student, teacher = _trained_backbone(settings), _backbone(settings, drop_path=0.0)
    student_head, teacher_head = (
        DINOHead(
            num_features(student),
            num_layers=dino.head_layers,
            hidden_dim=dino.head_hidden_dim,
            bottleneck_dim=dino.head_bottleneck_dim,
            output_dim=dino.head_output_dim,
            batch_norm=dino.head_batch_norm,
            norm_last_layer=dino.norm_last_layer,
        )
        for _ in range(2)
    )
    return DINO(
        Network(student, student_head),
        Network(teacher, teacher_head),
        num_global=settings.views.num_global,
        num_local=settings.views.num_local,
        student_temp=dino.student_temp,
        center_momentum=dino.center_momentum,
        global_pair_weight=settings.global_pair_weight,
    )


def _build_swav(settings: PretrainSettings) -> SwAV:
    swav = settings.swav
    backbone = _trained_backbone(settings)
    head = SwAVHead(
        num_features(backbone),
        num_layers=swav.head_layers,
        hidden_dim=swav.head_hidden_dim,
        output_dim=swav.head_output_dim,
        num_prototypes=swav.num_prototypes,
        batch_norm=swav.head_batch_norm,
    )
    return SwAV(
        Network(backbone, head),
        num_global=settings.views.num_global,
        num_local=settings.views.num_local,
        temperature=swav.temperature,
        epsilon=swav.epsilon,
        num_iterations=swav.sinkhorn_iterations,
        queue_size=swav.queue_size,
        global_pair_weight=settings.global_pair_weight,
    )


def _build_moco(settings: PretrainSettings) -> MoCo:
    moco = settings.moco
    query, key = _trained_backbone(settings), _backbone(settings, drop_path=0.0)
    query_head, key_head = (
        projection_mlp(
            num_features(query),
            num_layers=moco.head_layers,
            hidden_dim=moco.head_hidden_dim,
            out_dim=moco.head_output_dim,
            batch_norm=moco.head_batch_norm,
            activation=nn.ReLU,
        )
        for _ in range(2)
    )
    return MoCo(
        Network(query, query_head),
        Network(key, key_head),
        num_local=settings.views.num_local,
        embedding_dim=moco.head_output_dim,
        temperature=moco.temperature,
        queue_size=moco.queue_size,
        global_pair_weight=settings.global_pair_weight,
    )


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
