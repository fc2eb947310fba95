"""Projection heads between backbone and loss."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslight.backbones import linear
from sslight.methods.precision import full_precision


def projection_mlp(
    in_dim: int,
    *,
    num_layers: int,
    hidden_dim: int,
    out_dim: int,
    batch_norm: bool,
    activation: Callable[[], nn.Module],
    init_std: float = 0.02,
) -> nn.Sequential:
    """An MLP ``[N, in_dim]`` → ``[N, out_dim]``: [batch norm and] activation after all but the last layer.

    Weights start normal with standard deviation ``init_std``, biases at 0. (DINO writes this as a truncated
    normal, but truncates at ±2, a hundred standard deviations.)
    """
    layers: list[nn.Module] = []
    for _ in range(num_layers - 1):
        layers.append(nn.Linear(in_dim, hidden_dim))
        if batch_norm:
            layers.append(nn.BatchNorm1d(hidden_dim))
        layers.append(activation())
        in_dim = hidden_dim
    layers.append(nn.Linear(in_dim, out_dim))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=init_std)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


class WeightNormLinear(nn.Module):
    """A linear layer without bias whose rows are g · v / ‖v‖ (Salimans & Kingma, NeurIPS 2016).

    Args:
        in_dim: Length of the input.
        out_dim: Rows.
        learn_norm: Learn ``weight_g`` ``[out_dim, 1]``; otherwise it stays 1.
    """

    def __init__(self, in_dim: int, out_dim: int, *, learn_norm: bool) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(out_dim, 1), requires_grad=learn_norm)
        self.weight_v = nn.Parameter(torch.empty(out_dim, in_dim))
        nn.init.uniform_(self.weight_v, -(in_dim**-0.5), in_dim**-0.5)  # as nn.Linear starts

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in_dim]`` → ``[N, out_dim]``."""
        norms = torch.linalg.vector_norm(self.weight_v, dim=1, keepdim=True)
        return linear(x, self.weight_v * (self.weight_g / norms))


class DINOHead(nn.Module):
    """DINO's projection head: MLP, L2 normalisation, weight-normalised last layer (Caron et al., appendix C).

    Args:
        in_dim: Length of the backbone's features.
        num_layers: Linear layers of the MLP.
        hidden_dim: Width of its hidden layers.
        bottleneck_dim: Length of its normalised output.
        output_dim: Outputs K of the last layer.
        batch_norm: Batch normalisation in the MLP.
        norm_last_layer: Keep the norms of the last layer's rows at 1.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        num_layers: int = 3,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        output_dim: int = 4096,
        batch_norm: bool,
        norm_last_layer: bool,
    ) -> None:
        super().__init__()
        self.mlp = projection_mlp(
            in_dim,
            num_layers=num_layers,
            hidden_dim=hidden_dim,
            out_dim=bottleneck_dim,
            batch_norm=batch_norm,
            activation=nn.GELU,
        )
        self.last_layer = WeightNormLinear(bottleneck_dim, output_dim, learn_norm=not norm_last_layer)

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[N, in_dim]`` → logits ``[N, K]``; the last layer always works in full precision."""
        projected = self.mlp(features)
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.last_layer(F.normalize(full_precision(projected), dim=1))
        return logits
