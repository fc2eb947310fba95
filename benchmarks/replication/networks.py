"""Networks of the plans that timm does not have."""

from typing import Any

from timm.models import register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import nn


@register_model  # type: ignore[untyped-decorator]
def resnet18_cifar(pretrained: bool = False, num_classes: int = 0, **unused: Any) -> nn.Module:
    """ResNet-18 that starts with a 3×3 convolution of stride 1 and has no max-pooling, as is usual for CIFAR."""
    return _resnet18_cifar((64, 128, 256, 512), num_classes)


@register_model  # type: ignore[untyped-decorator]
def resnet18_cifar_025(pretrained: bool = False, num_classes: int = 0, **unused: Any) -> nn.Module:
    """The same with stages of a quarter of the width: 0.7 million parameters."""
    return _resnet18_cifar((16, 32, 64, 128), num_classes)


def _resnet18_cifar(channels: tuple[int, ...], num_classes: int) -> nn.Module:
    network = ResNet(BasicBlock, (2, 2, 2, 2), num_classes=num_classes, channels=channels, zero_init_last=False)
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    assert isinstance(network, nn.Module)
    return network
