"""Initial weights of the paper's convolutional networks."""

from torch import nn


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
