"""Initial weights of convolutional networks: those of the paper, and smooth ones for short runs."""

from math import prod, sqrt

import torch
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import nn

_SMOOTH_SHARE = 0.7
"""How far kernels move towards mean filters. Ours; better than 0.5: benchmarks/results/tiny-imagenet.md."""


def initialize_as_torchvision(backbone: nn.Module) -> None:
    """Give a CNN torchvision's initial weights, which the original used.

    Convolutions are normal with variance 2 / fan-out (He et al., ICCV 2015); norms start at scale 1 and shift 0. timm
    differs in two points: it divides the fan-out of depth-wise kernels by the groups, and starts the last norm of a
    ResNet block at scale 0.
    """
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            assert module.bias is None
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


@torch.no_grad()
def initialize_smoothly(backbone: nn.Module) -> None:
    """Change a new MobileNet's weights so that two crops of an image agree before training.

    What two crops share is mostly coarse. Random kernels have no mean, so they pass on the fine structure instead, and
    in training mode MobileNetV2's 52 norms restore its size: the first targets say almost nothing about the image, and
    a short run ends before they do. Here, depth-wise kernels move most of the way to the positive mean filter of the
    same norm, the stem's kernels to that of their own mean, and residual branches start at 0 through the scale of their
    last norm (Goyal et al., arXiv 1706.02677, section 5.1). Draws no random numbers. Networks without inverted residual
    blocks stay unchanged; ResNets got worse with such a change. Measured in benchmarks/results/tiny-imagenet.md.
    """
    if not any(isinstance(module, InvertedResidual) for module in backbone.modules()):
        return
    stem = backbone.get_submodule("conv_stem")
    assert isinstance(stem, nn.Conv2d)
    mean = stem.weight.mean((2, 3), keepdim=True)
    stem.weight.lerp_((mean * sqrt(prod(stem.kernel_size))).expand_as(stem.weight), _SMOOTH_SHARE)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            size = module.weight.square().mean((2, 3), keepdim=True).sqrt()
            module.weight.lerp_(size.expand_as(module.weight), _SMOOTH_SHARE)
        elif isinstance(module, InvertedResidual) and module.has_skip:
            nn.init.zeros_(module.bn3.weight)
        elif isinstance(module, DepthwiseSeparableConv) and module.has_skip:
            nn.init.zeros_(module.bn2.weight)
