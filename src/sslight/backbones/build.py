"""Backbones by name: any timm model, images in, one feature vector per image out."""

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from timm.models import PretrainedCfg, is_model_in_modules
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslight.backbones.initialization import initialize_as_torchvision
from sslight.backbones.vit import MultiSizeVisionTransformer

ALIASES = {"mobilenet_v2": "mobilenetv2_100", "vit_tiny": "vit_tiny_patch16_224"}
"""Friendly names of the paper's backbones that timm calls differently."""

_TORCHVISION_INIT = {"mobilenetv2_100", "resnet18", "resnet34", "resnet50"}
_VIT_MODULES = {"vision_transformer", "deit", "eva"}  # these take patch_size and dynamic_img_size
_HYBRID_MODULES = {"vision_transformer_hybrid", "vitamin"}  # ViTs on the feature map of a CNN: dynamic_img_size only
_WINDOW_MODULES = {"swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr"}  # strict_img_size


def build_backbone(
    name: str, *, image_size: int | None = None, patch_size: int | None = None, drop_path: float = 0.0
) -> nn.Module:
    """A timm model without classifier, with new random weights, in training mode.

    It maps normalized images ``[B, 3, H, W]`` to features ``[B, num_features]``. The paper's CNNs start
    like torchvision's networks, which the original used; plain ViTs like the original's; all others as timm
    initializes them. Nothing is downloaded.

    Args:
        name: mobilenet_v2, resnet18, resnet34, resnet50, vit_tiny or any timm name.
        image_size: Side in px for which a ViT's position embedding is native (other sizes are
            interpolated); None keeps the architecture's own. Convolutional networks and Swin take any size.
        patch_size: Patch side in px of a ViT; None keeps the architecture's own.
        drop_path: Largest rate of stochastic depth, rising linearly from 0 over the blocks.

    Raises:
        ValueError: the name is unknown, or ``patch_size`` or ``drop_path`` has no effect on it.
    """
    architecture = timm_name(name)
    arguments: dict[str, Any] = {}
    if is_model_in_modules(architecture, _VIT_MODULES | _HYBRID_MODULES):
        arguments["dynamic_img_size"] = True
        if image_size is not None:
            arguments["img_size"] = image_size
    elif is_model_in_modules(architecture, _WINDOW_MODULES):
        arguments["strict_img_size"] = False  # pads maps to whole windows; these stay the architecture's own
    if patch_size is not None:
        if not is_model_in_modules(architecture, _VIT_MODULES):
            raise ValueError(
                f"patch_size={patch_size} has no effect on backbone={name}, which has no patches: "
                f"set patch_size=null or choose a ViT."
            )
        arguments["patch_size"] = patch_size
    if drop_path > 0:
        arguments["drop_path_rate"] = drop_path
    try:
        backbone: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=0, **arguments)
    except TypeError as error:
        if drop_path == 0 or "drop_path_rate" not in str(error):
            raise
        rule = f"drop_path={drop_path:g} has no effect on backbone={name}, which has no stochastic depth"
        raise ValueError(f"{rule}: set drop_path=0.") from None
    if not hasattr(backbone, "pretrained_cfg"):  # registered by its author without timm's builder, which writes it
        own = next((part for part in ("fc", "classifier", "head") if hasattr(backbone, part)), None)
        config: Any = PretrainedCfg(architecture=architecture, input_size=(3, 224, 224), classifier=own).to_dict()
        backbone.pretrained_cfg = config
    if type(backbone) is VisionTransformer and backbone.pos_embed is not None:
        MultiSizeVisionTransformer.adopt(backbone)
    if architecture in _TORCHVISION_INIT:
        initialize_as_torchvision(backbone)
    return backbone


def timm_name(name: str) -> str:
    """Timm's name of a backbone. Raises ValueError, with the nearest names, if there is none."""
    network = re.split("[:/]", name)[-1].partition(".")[0]  # of timm:NETWORK.TAG, hf-hub:OWNER/NETWORK.TAG
    architecture = ALIASES.get(network, network)
    if timm.is_model(architecture):
        if network == name:
            return architecture
        raise ValueError(
            f"backbone={name} names pre-trained weights, but the network starts from new ones: write {network}."
        )
    nearest = difflib.get_close_matches(network, [*ALIASES, *timm.list_models()], n=3, cutoff=0.4)
    remedy = f"the nearest names are {', '.join(nearest)}" if nearest else "timm.list_models() lists all"
    raise ValueError(f"backbone={name} is not a known network: {remedy}.")


def batch_norms(backbone: nn.Module) -> list[nn.Module]:
    """Its layers that normalize by statistics of the batch."""
    return [module for module in backbone.modules() if isinstance(module, _BatchNorm)]


def num_features(backbone: nn.Module) -> int:
    """Length of a backbone's feature vector, as its forward pass gives it.

    timm's ``num_features`` is that of the last feature map; networks like MobileNetV3 add a layer after it.
    """
    features = backbone.head_hidden_size
    assert isinstance(features, int)
    return features


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Within, the module is in eval mode; afterwards in the mode that it had."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


def check_image_size(backbone: nn.Module, image_size: int, setting: str) -> None:
    """Refuse a view size that the backbone cannot take, by passing one blank image through it.

    The backbone's state and the random stream do not change. ``setting`` names the size (px) in the message. Raises
    ValueError, with the settings that fit, if it is not a multiple of the patch side or the network refuses it.
    """
    if isinstance(backbone, VisionTransformer | Eva):
        patch = backbone.patch_embed.feat_ratio()
        if image_size % patch:
            below = image_size // patch * patch
            nearest = f"{below} and {below + patch}" if below else f"{patch}"
            raise ValueError(
                f"{setting}={image_size} is not a multiple of the patch side {patch} of the backbone: "
                f"the nearest sizes are {nearest}."
            )
    reason = _refusal(backbone, image_size)
    if reason is None:
        return
    sides: list[int] = [(image_size // 32 + 1) * 32, backbone.pretrained_cfg["input_size"][-1]]  # type: ignore[index, list-item]
    fitting = next((side for side in sides if side != image_size and _refusal(backbone, side) is None), None)
    remedy = "choose another size or a backbone that takes views of any size"
    if fitting is not None:
        local = f"views.local_size={fitting} or views.num_local=0"
        settings = {"views.global_size": f"views.global_size={fitting} with {local}", "views.local_size": local}
        one = settings.get(setting, f"{setting}={fitting}")
        remedy = f"set {one}, or choose a backbone that takes images of any size"
    raise ValueError(
        f"{setting}={image_size} does not fit the backbone {type(backbone).__name__} ({reason}): {remedy}."
    )


def _refusal(backbone: nn.Module, image_size: int) -> str | None:
    """Why the backbone fails on a blank image of this side; None if it does not."""
    parameter = next(backbone.parameters())
    blank = torch.zeros(1, 3, image_size, image_size, device=parameter.device, dtype=parameter.dtype)
    try:
        with eval_mode(backbone), torch.no_grad():
            shape = list(backbone(blank).shape)
    except (AssertionError, RuntimeError, ValueError) as error:
        return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    expected = [1, num_features(backbone)]
    return None if shape == expected else f"it gives {shape} for one image instead of one feature vector {expected}"


def patch_side(name: str, patch_size: int | None = None) -> int | None:
    """Side in px of a ViT's patches, which must divide the view sizes; None without patches.

    ``patch_size`` replaces the architecture's own. Raises ValueError for a name that timm does not know.
    """
    architecture = timm_name(name)
    if not is_model_in_modules(architecture, _VIT_MODULES):
        return None
    if patch_size is not None:
        return patch_size
    if own := re.search(r"_patch(\d+)", architecture):  # timm's way of naming most of them
        return int(own[1])
    with torch.device("meta"):
        return int(timm.create_model(architecture).patch_embed.patch_size[0])
