"""The method that the settings ask for."""

from typing import Any

from torch import nn

from sslight.backbones import (
    adopt_cpu_layers,
    batch_norms,
    build_backbone,
    check_image_size,
    checkpoint_gradients,
    initialize_smoothly,
    keep_results,
    num_features,
)
from sslight.config import PretrainSettings
from sslight.config.schema.method_settings import DINOSettings, MoCoSettings, SwAVSettings
from sslight.methods.dino import DINO
from sslight.methods.heads import DINOHead, SwAVHead, projection_mlp
from sslight.methods.method import Method
from sslight.methods.moco import MoCo
from sslight.methods.network import Network
from sslight.methods.swav import SwAV


def build_method(settings: PretrainSettings, device_type: str = "cpu") -> Method:
    """The method with new weights, on the CPU, in training mode. Draws from PyTorch's global random stream.

    A ViT's position embedding is native to ``views.global_size``. Reads no files. Layers that are faster on a CPU are
    used only for the ``device_type`` ``cpu``.

    Raises:
        ValueError: the backbone is unknown, or a view size or another setting does not fit it.
    """
    method: Method
    match settings.method:
        case "dino":
            method = _build_dino(settings)
        case "swav":
            method = _build_swav(settings)
        case "moco":
            method = _build_moco(settings)
    if device_type == "cpu":
        adopt_cpu_layers(method)
    keep_results(method.backbone, nn.ReLU6)
    save_memory(method, settings)
    return method


def save_memory(method: Method, settings: PretrainSettings) -> None:
    """Make a new method keep less for the backward pass, as ``grad_checkpointing`` says; ``auto`` must be resolved
    before.

    Raises:
        ValueError: the backbone has no such mode, or cannot be compiled with it.
    """
    if settings.grad_checkpointing is True:
        if settings.compile and batch_norms(method.backbone):
            raise ValueError(
                f"grad_checkpointing=true cuts the compiled graphs of backbone={settings.backbone} at each block, so "
                "that its batch norms count once: leave compile or grad_checkpointing out."
            )
        checkpoint_gradients(method.backbone, settings.backbone)
    elif settings.grad_checkpointing == "norms":
        keep_results(method, nn.ReLU)


def _build_dino(settings: PretrainSettings) -> DINO:
    dino = settings.dino
    backbones = _trained_backbone(settings), _backbone(settings, drop_path=0.0)
    head = _mlp(dino) | {"bottleneck_dim": dino.head_bottleneck_dim, "norm_last_layer": dino.norm_last_layer}
    student, teacher = (
        Network(backbone, DINOHead(num_features(backbone), **head, output_dim=dino.head_output_dim))
        for backbone in backbones
    )
    return DINO(
        student,
        teacher,
        num_global=settings.views.num_global,
        num_local=settings.views.num_local,
        student_temp=dino.student_temp,
        center_momentum=dino.center_momentum,
        global_pair_weight=settings.global_pair_weight,
        koleo_weight=dino.koleo_weight,
    )


def _build_swav(settings: PretrainSettings) -> SwAV:
    swav = settings.swav
    backbone = _trained_backbone(settings)
    head = SwAVHead(
        num_features(backbone), **_mlp(swav), output_dim=swav.head_output_dim, num_prototypes=swav.num_prototypes
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
    backbones = _trained_backbone(settings), _backbone(settings, drop_path=0.0)
    head = _mlp(moco) | {"out_dim": moco.head_output_dim, "activation": nn.ReLU}
    query, key = (Network(backbone, projection_mlp(num_features(backbone), **head)) for backbone in backbones)
    return MoCo(
        query,
        key,
        num_local=settings.views.num_local,
        embedding_dim=moco.head_output_dim,
        temperature=moco.temperature,
        queue_size=moco.queue_size,
        global_pair_weight=settings.global_pair_weight,
        koleo_weight=moco.koleo_weight,
    )


def _mlp(method: DINOSettings | SwAVSettings | MoCoSettings) -> dict[str, Any]:
    """The settings that all heads have."""
    return {
        "num_layers": method.head_layers,
        "hidden_dim": method.head_hidden_dim,
        "batch_norm": method.head_batch_norm,
    }


def _trained_backbone(settings: PretrainSettings) -> nn.Module:
    """The backbone that is trained by gradients and takes views of the given sizes."""
    views = settings.views
    backbone = _backbone(settings, settings.drop_path)
    if settings.init == "smooth":
        initialize_smoothly(backbone)
    check_image_size(backbone, views.global_size, "views.global_size")
    if views.num_local:
        check_image_size(backbone, views.local_size, "views.local_size")
    return backbone


def _backbone(settings: PretrainSettings, drop_path: float) -> nn.Module:
    sizes = {"image_size": settings.views.global_size, "patch_size": settings.patch_size}
    return build_backbone(settings.backbone, **sizes, drop_path=drop_path)
