"""SwAV: swapping assignments between views (Caron et al., NeurIPS 2020), with SSLight's weighting of pairs."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslight.backbones import linear
from sslight.methods.heads import projection_mlp
from sslight.methods.method import Method, StepOutput, StepValues
from sslight.methods.network import Network
from sslight.methods.pairs import combine_pair_means, cross_view_means
from sslight.methods.precision import full_precision
from sslight.methods.processes import gather_rows, log_sum_exp_over_processes, num_processes, process_rank


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float, num_iterations: int) -> Tensor:
    """Soft assignments of embeddings to prototypes that use all prototypes alike (SwAV, section 3.2).

    Sinkhorn–Knopp on exp(scores / epsilon), in logarithms, so that no epsilon overflows. With
    torch.distributed the rows of all processes together are one problem; N may differ between them.

    Args:
        scores: Similarities ``[N, P]`` of embeddings and prototypes.
        epsilon: Entropy of the assignments: small is sharp.
        num_iterations: Rounds of normalisation over embeddings, then over prototypes.

    Returns:
        Assignments ``[N, P]`` of this process's rows; each row sums to 1.
    """
    log_q = full_precision(scores) / epsilon
    for _ in range(num_iterations):
        log_q = log_q - log_sum_exp_over_processes(log_q)  # each prototype gets the same total ...
        log_q = log_q - log_q.logsumexp(1, keepdim=True)  # ... and each embedding
    return log_q.exp()


def swav_loss(scores: Tensor, assignments: Tensor, *, temperature: float, global_pair_weight: float | None) -> Tensor:
    """Cross-entropy of each view's prediction with the assignments of the other global views (SwAV, equation 2).

    Args:
        scores: ``[V, B, P]``, global views first.
        assignments: ``[G, B, P]`` of the global views; no gradient flows into them.
        temperature: Of the softmax over prototypes.
        global_pair_weight: As in :func:`~sslight.methods.dino_loss`.

    Returns:
        Scalar.
    """
    num_global, num_views = len(assignments), len(scores)
    global_mean, local_mean = swav_pair_means(scores, assignments, temperature=temperature)
    return combine_pair_means(
        global_mean,
        local_mean,
        num_global=num_global,
        num_local=num_views - num_global,
        global_pair_weight=global_pair_weight,
    )


def swav_pair_means(scores: Tensor, assignments: Tensor, *, temperature: float) -> tuple[Tensor, Tensor | None]:
    """The two terms of :func:`swav_loss`: means over global–global and over global–local pairs.

    The second is None without local views.
    """
    log_probs = F.log_softmax(full_precision(scores) / temperature, dim=-1)
    return cross_view_means(log_probs, full_precision(assignments))


class SwAVHead(nn.Module):
    """SwAV's projection head: MLP and L2 normalisation; then the similarities to the prototypes.

    All weights start normal with standard deviation 0.01. The prototypes are normalised between steps
    (:meth:`normalize_prototypes`), not in the graph.

    Args:
        in_dim: Length of the backbone's features.
        num_layers: Linear layers of the MLP.
        hidden_dim: Width of its hidden layers.
        output_dim: Length D of the embedding.
        num_prototypes: Prototypes P.
        batch_norm: Batch normalisation in the MLP.
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
        projected = self.mlp(features)
        with torch.autocast(features.device.type, enabled=False):
            embeddings = F.normalize(full_precision(projected), dim=1)
            return embeddings, self.score(embeddings)

    def score(self, embeddings: Tensor) -> Tensor:
        """Similarities ``[..., P]`` of embeddings ``[..., D]`` to the prototypes."""
        return linear(embeddings, self.prototypes.weight)

    @torch.no_grad()
    def normalize_prototypes(self) -> None:
        """Put the prototypes back on the unit sphere, outside the graph."""
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))


class SwAV(Method):
    """One network, prototypes, and a queue of earlier embeddings.

    The queue holds the newest ``queue_size`` embeddings of each global view over all processes, newest
    first, the same on every process; any size will do. While ``StepValues.use_queue`` is set it fills;
    once full, its scores join the batch's in Sinkhorn, each process bringing a share of the rows.
    A batch never meets itself: its embeddings go in after the step.

    Args:
        backbone: Maps ``[B, 3, H, W]`` to ``[B, num_features]``.
        num_features: Length of the features.
        num_global: Global views G, at least 2.
        num_local: Local views L, or 0.
        head_layers: For these five see :class:`SwAVHead`.
        head_hidden_dim: Width of the head's hidden layers.
        head_output_dim: Length D of the embedding.
        num_prototypes: Prototypes P.
        head_batch_norm: Batch normalisation in the head.
        temperature: Of the softmax over prototypes.
        epsilon: Entropy of Sinkhorn's assignments.
        num_iterations: Rounds of Sinkhorn.
        queue_size: Embeddings Q kept of each global view; 0 for no queue.
        global_pair_weight: See :func:`~sslight.methods.dino_loss`.
    """

    queue: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        num_features: int,
        num_global: int,
        num_local: int,
        head_layers: int,
        head_hidden_dim: int,
        head_output_dim: int,
        num_prototypes: int,
        head_batch_norm: bool,
        temperature: float,
        epsilon: float,
        num_iterations: int,
        queue_size: int,
        global_pair_weight: float | None,
    ) -> None:
        super().__init__()
        head = SwAVHead(
            num_features,
            num_layers=head_layers,
            hidden_dim=head_hidden_dim,
            output_dim=head_output_dim,
            num_prototypes=num_prototypes,
            batch_norm=head_batch_norm,
        )
        self.network = Network(backbone, head)
        self.register_buffer("queue", torch.zeros(num_global, queue_size, head_output_dim))
        self._queue_filled = 0  # rows of the queue that hold embeddings; on the host, so that no step waits for it
        self._seen: list[Tensor] = []
        self.num_global = num_global
        self.num_local = num_local
        self.temperature = temperature
        self.epsilon = epsilon
        self.num_iterations = num_iterations
        self.global_pair_weight = global_pair_weight

    def get_extra_state(self) -> dict[str, int]:
        """The part of the state that lives on the host."""
        return {"queue_filled": self._queue_filled}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Put back what :meth:`get_extra_state` gave."""
        self._queue_filled = state["queue_filled"]

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The one backbone."""
        return {"network": self.network.backbone}

    @property
    def head(self) -> SwAVHead:
        """The network's head."""
        head = self.network.head
        assert isinstance(head, SwAVHead)
        return head

    @property
    def queue_is_full(self) -> bool:
        """Whether the queue holds as many embeddings as it can; only then its rows take part in Sinkhorn."""
        return 0 < self.queue.shape[1] == self._queue_filled

    def frozen_parameters(self, values: StepValues) -> list[nn.Parameter]:
        """The prototypes while they are frozen."""
        return list(self.head.prototypes.parameters()) if values.freeze_last_layer else []

    def begin_step(self, values: StepValues) -> None:
        """Normalise the prototypes."""
        self._seen.clear()
        self.head.normalize_prototypes()

    def forward(self, global_views: Tensor, local_views: Tensor | None, values: StepValues) -> StepOutput:
        """The loss of all views against the assignments of the global ones.

        ``scalars``: ``global_loss`` and ``local_loss``, the two terms of the loss; ``prototypes_used``,
        prototypes that are the first choice of some embedding, as a share of the most that the batch
        allows (near 0: collapse); ``assignment_entropy``, mean entropy of the assignments as a share of ln P.
        """
        batch = len(global_views) // self.num_global
        assert len(global_views) == self.num_global * batch
        assert (0 if local_views is None else len(local_views)) == self.num_local * batch
        views = [global_views] if local_views is None else [global_views, local_views]
        features, (embeddings, scores) = self.network(*views)
        scores = scores.unflatten(0, (-1, batch))
        embeddings = embeddings[: self.num_global * batch].detach().unflatten(0, (-1, batch))
        assignments = self.assign(scores[: self.num_global].detach(), use_queue=values.use_queue)
        if values.use_queue and self.queue.shape[1]:
            self._seen.append(embeddings)
        global_mean, local_mean = swav_pair_means(scores, assignments, temperature=self.temperature)
        loss = combine_pair_means(
            global_mean,
            local_mean,
            num_global=self.num_global,
            num_local=self.num_local,
            global_pair_weight=self.global_pair_weight,
        )
        scalars = _indicators(assignments)
        scalars["global_loss"] = global_mean.detach()
        if local_mean is not None:
            scalars["local_loss"] = local_mean.detach()
        return StepOutput(loss=loss, scalars=scalars, features=full_precision(features[:batch].detach()))

    @torch.no_grad()
    def assign(self, scores: Tensor, *, use_queue: bool) -> Tensor:
        """Assignments ``[G, B, P]`` of the global views from their scores, with the queue's once it is full."""
        with torch.autocast(scores.device.type, enabled=False):
            rows = scores
            if use_queue and self.queue_is_full:
                share = self.queue[:, process_rank() :: num_processes()]
                rows = torch.cat([self.head.score(share), scores], dim=1)
            assigned = [
                sinkhorn(view, epsilon=self.epsilon, num_iterations=self.num_iterations)[-scores.shape[1] :]
                for view in rows
            ]
        return torch.stack(assigned)

    @torch.no_grad()
    def end_step(self, values: StepValues) -> None:
        """Put this step's embeddings of all processes on top of the queue."""
        if not self._seen:
            return
        size = self.queue.shape[1]
        newest = gather_rows(torch.cat(self._seen, dim=1).transpose(0, 1)).transpose(0, 1)
        self.queue.copy_(torch.cat([newest, self.queue], dim=1)[:, :size])
        self._queue_filled = min(size, self._queue_filled + newest.shape[1])
        self._seen.clear()


@torch.no_grad()
def _indicators(assignments: Tensor) -> dict[str, Tensor]:
    """Indicators of the assignments ``[G, B, P]``."""
    num_prototypes = assignments.shape[-1]
    first_choice = assignments.argmax(-1).flatten()
    counts = torch.zeros(num_prototypes, device=assignments.device).scatter_(0, first_choice, 1.0)
    return {
        "prototypes_used": counts.sum() / min(num_prototypes, len(first_choice)),
        "assignment_entropy": torch.special.entr(assignments).sum(-1).mean() / math.log(num_prototypes),
    }
