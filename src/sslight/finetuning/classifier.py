"""A classifier: a backbone and a head, which may take over layers of a projection head."""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sslight.backbones import num_features


def carries_over(projection: Mapping[str, Tensor] | None) -> bool:
    """Whether a projection head has hidden layers with batch norm, as the published protocol needs."""
    return projection is not None and any(key.endswith("running_mean") for key in projection)


class Classifier(nn.Module):
    """A backbone and a classifier on its features.

    Args:
        backbone: The pre-trained backbone; used as it is, not copied.
        num_classes: Number of classes C.
        projection: The MLP of a DINO head, state dict of layers by position; all its linear layers but the
            last, with their batch norm, become the first layers of the classifier, each followed by GELU. None
            for a classifier of one linear layer.
        seed: Of the new linear layer, which starts as PyTorch's do.
    """

    def __init__(
        self, backbone: nn.Module, num_classes: int, *, projection: Mapping[str, Tensor] | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.backbone = backbone
        layers, width = ([], num_features(backbone)) if projection is None else hidden_layers(projection)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers.append(nn.Linear(width, num_classes))
        self.head = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Normalized images ``[B, 3, H, W]`` → logits ``[B, C]``."""
        logits: Tensor = self.head(self.backbone(x))
        return logits


def hidden_layers(projection: Mapping[str, Tensor]) -> tuple[list[nn.Module], int]:
    """The linear and batch-norm layers before the last linear one, each pair followed by GELU, and their width."""
    linear = sorted(int(key.split(".")[0]) for key, value in projection.items() if value.ndim == 2)
    layers: list[nn.Module] = []
    width = 0
    for position in linear[:-1]:
        width, in_features = projection[f"{position}.weight"].shape
        layers.append(_filled(nn.Linear(in_features, width), projection, position))
        if f"{position + 1}.running_mean" in projection:
            layers.append(_filled(nn.BatchNorm1d(width), projection, position + 1))
        layers.append(nn.GELU())
    return layers, width


def _filled(layer: nn.Module, state: Mapping[str, Tensor], position: int) -> nn.Module:
    layer.load_state_dict(OrderedDict((name, state[f"{position}.{name}"]) for name in layer.state_dict()))
    return layer
