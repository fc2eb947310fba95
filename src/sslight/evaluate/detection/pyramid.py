"""A feature pyramid on any timm backbone that gives feature maps (Lin et al., CVPR 2017)."""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from sslight.backbones import eval_mode, timm_name

_CHANNELS = 256
_DEFAULT_STRIDES = (4, 8, 16, 32)
_TWO_DEEPEST = "mobilenetv2"
_PROBE_SIDE = 128


@dataclass(frozen=True)
class FeatureMaps:
    """What a backbone gives: of each stride the deepest map's position and channels, and its unused parameters."""

    position: dict[int, int]
    channels: dict[int, int]
    unused: list[nn.Parameter]


class BackboneWithPyramid(nn.Module):
    """Images ``[B, 3, H, W]`` → maps ``[B, 256, H/s, W/s]`` for each stride s, and one pooled from the deepest.

    The deepest map is what the backbone passes on to its pooling: in MobileNetV2 that is the last 1 × 1
    convolution with 1280 channels, as in the original. Parameters behind it are frozen, since they get no
    gradients. ``strides`` are those of the maps to use in px, rising; None for the usual ones. The backbone is used as
    it is, not copied; ValueError if it gives no feature maps, or not at these strides.
    """

    def __init__(self, backbone: nn.Module, *, name: str, strides: list[int] | None = None) -> None:
        super().__init__()
        maps = find_feature_maps(backbone, name)
        default = [stride for stride in _DEFAULT_STRIDES if stride in maps.channels]
        wanted = strides or (default[-2:] if timm_name(name).startswith(_TWO_DEEPEST) else default)
        missing = [stride for stride in wanted if stride not in maps.channels]
        if missing or len(wanted) < 2:
            found = ", ".join(str(stride) for stride in sorted(maps.channels))
            asked = f"strides={wanted} does not fit" if strides else "a pyramid does not fit"
            raise ValueError(
                f"{asked} the backbone {name}: its feature maps have the strides {found}, and at least two are "
                f"needed; choose another backbone, such as mobilenet_v2 or resnet18."
            )
        for parameter in maps.unused:
            parameter.requires_grad_(False)
        self.backbone = backbone
        self.strides = tuple(wanted)
        self.out_channels = _CHANNELS
        self._positions = [maps.position[stride] for stride in wanted]
        self.pyramid = FeaturePyramidNetwork(
            [maps.channels[stride] for stride in wanted], _CHANNELS, extra_blocks=LastLevelMaxPool()
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps by level, named ``"0"``, ``"1"``, ... and ``"pool"``, the finest first."""
        maps = _all_maps(self.backbone, images)
        chosen = OrderedDict((str(level), maps[position]) for level, position in enumerate(self._positions))
        levels: dict[str, Tensor] = self.pyramid(chosen)
        return levels


def _all_maps(backbone: nn.Module, images: Tensor) -> list[Tensor]:
    """The maps of all stages, the last one as it goes on to the pooling."""
    final, stages = backbone.forward_intermediates(images)  # type: ignore[operator]
    if final.ndim == 4 and final.shape[2:] == stages[-1].shape[2:]:
        stages[-1] = final
    return list(stages)


def find_feature_maps(backbone: nn.Module, name: str) -> FeatureMaps:
    """Pass a blank image through a backbone, in eval mode, to see what it gives.

    ValueError if it gives no feature maps, or takes images of one size only.
    """
    parameter = next(backbone.parameters())
    blank = torch.zeros(1, 3, _PROBE_SIDE, _PROBE_SIDE, device=parameter.device, dtype=parameter.dtype)
    try:
        with eval_mode(backbone):
            maps = _all_maps(backbone, blank)
    except (AttributeError, AssertionError, RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"the backbone {name} gives no feature maps for images of arbitrary size ({reason}): choose another one, "
            f"such as mobilenet_v2 or resnet18."
        ) from None
    parameters = [each for each in backbone.parameters() if each.requires_grad]
    gradients = torch.autograd.grad(torch.stack([each.sum() for each in maps]).sum(), parameters, allow_unused=True)
    strides = [_PROBE_SIDE // each.shape[2] for each in maps]
    return FeatureMaps(
        position={stride: position for position, stride in enumerate(strides)},  # a deeper one replaces it
        channels={stride: each.shape[1] for stride, each in zip(strides, maps, strict=True)},
        unused=[each for each, gradient in zip(parameters, gradients, strict=True) if gradient is None],
    )
