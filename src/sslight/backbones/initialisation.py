"""Initial weights of convolutional networks: those of the paper, and smooth ones for short runs."""

from math import prod, sqrt

import torch
from torch import nn

_SMOOTH_SHARE = 0.7
"""Of 0.5, 0.7, 0.8 and 0.85, with what agreement of two crops: benchmarks/results/tiny-imagenet.md."""


def initialise_as_torchvision(backbone: nn.Module) -> None:
    """Give a CNN the initial weights that torchvision's networks have, which the original trained.

    Convolutions are normal with variance 2 / fan-out (He et al., ICCV 2015); norms start at scale 1 and
    shift 0. timm differs in two points: the fan-out of depth-wise kernels, which it divides by the
    groups, and the last norm of a ResNet block, which it starts at scale 0.
    """
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            assert module.bias is None
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


@torch.no_grad()
def initialise_smoothly(backbone: nn.Module) -> None:
    """Change a new depth-wise CNN's weights so that two crops of an image agree before training.

    What two crops share is mostly coarse. Random kernels have no mean and pass on the fine structure instead,
    and in training mode dozens of norms restore its size: the first targets say next to nothing about the
    image, and a run of few epochs ends before they do. Here spatial kernels move most of the way to mean
    filters (in depth-wise layers positive, of the same norm), and residual branches start at 0 through the
    scale of their last norm (Goyal et al., arXiv 1706.02677, section 5.1). Draws no random numbers; networks
    without depth-wise layers stay as they are, since it did not help ResNets.

    Args:
        backbone: From :func:`~sslight.backbones.build_backbone`, changed in place.
    """
    spatial = [m for m in backbone.modules() if isinstance(m, nn.Conv2d) and prod(m.kernel_size) > 1]
    if not any(convolution.weight.shape[1] == 1 for convolution in spatial):
        return
    for convolution in spatial:
        kernels = convolution.weight
        if kernels.shape[1] == 1:
            filters = kernels.square().mean((2, 3), keepdim=True).sqrt()
        else:
            filters = kernels.mean((2, 3), keepdim=True) * sqrt(prod(convolution.kernel_size))
        kernels.lerp_(filters.expand_as(kernels), _SMOOTH_SHARE)
    for block in backbone.modules():
        if getattr(block, "has_skip", False):  # timm's blocks of MobileNets and EfficientNets
            norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
            nn.init.zeros_(norms[-1].weight)
