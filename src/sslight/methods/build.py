"""The method that the settings ask for."""

from torch import nn

from sslight.backbones import build_backbone, check_image_size, num_features
from sslight.config import PretrainSettings
from sslight.methods.dino import DINO
from sslight.methods.method import Method


def build_method(settings: PretrainSettings) -> Method:
    """The method with new weights, on the CPU, in training mode; draws from PyTorch's global random stream.

    A ViT's position embedding is native to ``views.global_size``. Reads no files.

    Raises:
        ValueError: the backbone is unknown, or a view size or another setting does not fit it.
    """
    match settings.method:
        case "dino":
            return _build_dino(settings)


def _build_dino(settings: PretrainSettings) -> DINO:
    views, dino = settings.views, settings.dino

    def backbone(drop_path: float) -> nn.Module:
        return build_backbone(
            settings.backbone,
            image_size=views.global_size,
            patch_size=settings.patch_size,
            drop_path=drop_path,
        )

    student, teacher = backbone(settings.drop_path), backbone(0.0)
    check_image_size(student, views.global_size, "views.global_size")
    if views.num_local:
        check_image_size(student, views.local_size, "views.local_size")
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
