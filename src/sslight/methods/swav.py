"""SwAV: swapping assignments between views (Caron et al., NeurIPS 2020), with SSLight's weighting of pairs."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslight.methods.heads import SwAVHead
from sslight.methods.method import Method, StepOutput, StepValues, images_per_view
from sslight.methods.network import Network
from sslight.methods.numerics import full_precision
from sslight.methods.pairs import PairMeans, cross_view_means
from sslight.methods.processes import gather_rows, log_sum_exp_over_processes, num_processes, process_rank


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float, num_iterations: int) -> Tensor:
    """Soft assignments of embeddings to prototypes that use all prototypes alike (SwAV, section 3.2).

    Sinkhorn–Knopp on exp(scores / epsilon), in logarithms, so that no epsilon overflows. With
    torch.distributed the rows of all processes together are one problem; N may differ between them.

    Args:
        scores: Similarities ``[N, P]`` of embeddings and prototypes.
        epsilon: Entropy of the assignments: small is sharp.
        num_iterations: Rounds of normalization over embeddings, then over prototypes.

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
    return swav_pair_means(scores, assignments, temperature=temperature).weighted(global_pair_weight)


def swav_pair_means(scores: Tensor, assignments: Tensor, *, temperature: float) -> PairMeans:
    """The two terms of :func:`swav_loss`: means of -Σ q log p over global–global and over global–local pairs."""
    log_p = F.log_softmax(full_precision(scores) / temperature, dim=-1)
    return cross_view_means(log_p, full_precision(assignments))


class SwAV(Method):
    """One network, prototypes, and a queue of earlier embeddings.

    The queue holds the newest ``queue_size`` embeddings of each global view over all processes, newest first, the same
    on every process; any size is allowed. It fills while ``StepValues.use_queue`` is set. Once it is full, its scores
    join the batch's in Sinkhorn, and each process adds a share of the rows. A batch never meets itself: its embeddings
    are added after the step.

    Args:
        network: The one network, of backbone, head and prototypes.
        num_global: Global views G, at least 2.
        num_local: Local views L, or 0.
        temperature: Of the softmax over prototypes.
        epsilon: Entropy of Sinkhorn's assignments.
        num_iterations: Rounds of Sinkhorn.
        queue_size: Embeddings Q kept of each global view; 0 for no queue.
        global_pair_weight: See :func:`~sslight.methods.dino_loss`.
    """

    queue: Tensor

    def __init__(
        self,
        network: Network[SwAVHead],
        *,
        num_global: int,
        num_local: int,
        temperature: float,
        epsilon: float,
        num_iterations: int,
        queue_size: int,
        global_pair_weight: float | None,
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("queue", torch.zeros(num_global, queue_size, network.head.prototypes.in_features))
        self._queue_filled = 0  # rows of the queue that hold embeddings; on the host, so that no step waits for it
        self._seen: list[Tensor] = []
        self.num_global, self.num_local = num_global, num_local
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
    def queue_is_full(self) -> bool:
        """Whether the queue holds as many embeddings as it can; only then its rows take part in Sinkhorn."""
        return 0 < self.queue.shape[1] == self._queue_filled

    def frozen_parameters(self, values: StepValues) -> list[nn.Parameter]:
        """The prototypes while they are frozen."""
        return list(self.network.head.prototypes.parameters()) if values.freeze_last_layer else []

    def begin_step(self, values: StepValues) -> None:
        """Normalize the prototypes."""
        self._seen.clear()
        self.network.head.normalize_prototypes()

    def forward(self, global_views: Tensor, local_views: Tensor | None, values: StepValues) -> StepOutput:
        """The loss of all views against the assignments of the global ones.

        ``scalars``: ``global_loss`` and ``local_loss``, the two terms of the loss; ``prototypes_used``,
        prototypes that are the first choice of some embedding, as a share of the most that the batch
        allows (near 0: collapse); ``assignment_entropy``, mean entropy of the assignments as a share of ln P.
        """
        batch = images_per_view(global_views, local_views, num_global=self.num_global, num_local=self.num_local)
        features, (embeddings, scores) = self.network(global_views, local_views)
        scores = scores.unflatten(0, (-1, batch))
        embeddings = embeddings[: self.num_global * batch].detach().unflatten(0, (-1, batch))
        assignments = self.assign(scores[: self.num_global].detach(), use_queue=values.use_queue)
        if values.use_queue and self.queue.shape[1]:
            self._seen.append(embeddings)
        means = swav_pair_means(scores, assignments, temperature=self.temperature)
        loss = means.weighted(self.global_pair_weight)
        return StepOutput(loss, _indicators(assignments) | means.scalars, full_precision(features[:batch].detach()))

    @torch.no_grad()
    def assign(self, scores: Tensor, *, use_queue: bool) -> Tensor:
        """Assignments ``[G, B, P]`` of the global views from their scores, with the queue's once it is full."""
        with torch.autocast(scores.device.type, enabled=False):
            rows = scores
            if use_queue and self.queue_is_full:
                share = self.queue[:, process_rank() :: num_processes()]
                rows = torch.cat([self.network.head.score(share), scores], dim=1)
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
