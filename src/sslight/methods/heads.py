"""Projection heads between backbone and loss."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslight.methods.numerics import linear, unit_rows


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
    """An MLP ``[N, in_dim]`` → ``[N, out_dim]``: [batch norm and] activation after all layers but the last.

    Weights start normal with standard deviation ``init_std``, biases at 0. (DINO calls this a truncated normal, but
    truncates at ±2, a hundred standard deviations.)
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
    """DINO's projection head: MLP, L2 normalization, weight-normalized last layer (Caron et al., appendix C).

    Args:
        in_dim: Length of the backbone's features.
        num_layers: Linear layers of the MLP.
        hidden_dim: Width of its hidden layers.
        bottleneck_dim: Length of its normalized output.
        output_dim: Outputs K of the last layer.
        batch_norm: Batch normalization in the MLP.
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
        bottleneck = unit_rows(self.mlp(features))
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.last_layer(bottleneck)
        return logits


class SwAVHead(nn.Module):
    """SwAV's projection head: MLP and L2 normalization; then the similarities to the prototypes.

    All weights start normal with standard deviation 0.01. The prototypes are normalized between steps
    (:meth:`normalize_prototypes`), not in the graph.

    Args:
        in_dim: Length of the backbone's features.
        num_layers: Linear layers of the MLP.
        hidden_dim: Width of its hidden layers.
        output_dim: Length D of the embedding.
        num_prototypes: Prototypes P.
        batch_norm: Batch normalization in the MLP.
    """

    def __init__(
        self, in_dim: int, *, num_layers: int, hidden_dim: int, output_dim: int, num_prototypes: int, batch_norm: bool
    ) -> None:
        super().__init__()
        self.mlp = projection_mlp(
            in_dim,
            num_layers=num_layers,
            hidden_dim=hidden_dim,
            out_dim=output_dim,
            batch_norm=batch_norm,
            activation=nn.ReLU,
            init_std=0.01,
        )
        self.prototypes = nn.Linear(output_dim, num_prototypes, bias=False)
        nn.init.normal_(self.prototypes.weight, std=0.01)  # only their directions matter

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``[N, in_dim]`` → embeddings ``[N, D]`` and scores ``[N, P]``, always in full precision."""
        embeddings = unit_rows(self.mlp(features))
        return embeddings, self.score(embeddings)

    def score(self, embeddings: Tensor) -> Tensor:
        """Similarities ``[..., P]`` of embeddings ``[..., D]`` to the prototypes, always in full precision."""
        with torch.autocast(embeddings.device.type, enabled=False):
            scores: Tensor = self.prototypes(embeddings)
        return scores

    @torch.no_grad()
    def normalize_prototypes(self) -> None:
        """Put the prototypes back on the unit sphere, outside the graph."""
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
