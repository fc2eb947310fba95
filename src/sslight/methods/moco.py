"""MoCo-v2 with several views: momentum contrast (He et al., CVPR 2020; Chen et al., 2020), weighted as in SSLight."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslight.methods.koleo import koleo_loss
from sslight.methods.method import Method, StepOutput, StepValues, images_per_view
from sslight.methods.network import Network
from sslight.methods.numerics import full_precision, linear, unit_rows
from sslight.methods.pairs import PairMeans
from sslight.methods.processes import gather_rows, num_processes, process_rank


def moco_loss(
    queries: Tensor, keys: Tensor, queue: Tensor, *, temperature: float, global_pair_weight: float | None
) -> Tensor:
    """InfoNCE of each query view with the key of the same image against the queue (MoCo, equation 1).

    Args:
        queries: ``[V-1, B, D]``, L2-normalized; query 0 is the global view.
        keys: ``[B, D]``, L2-normalized, of the first global view; no gradient flows into them.
        queue: ``[D, Q]``, normalized columns: keys of earlier images.
        temperature: Of the softmax over the key and the queue.
        global_pair_weight: w of w · global query + (1 - w) · mean over the local queries (SSLight, section
            4.2); None is the plain mean over all queries. Without local queries it has no effect.

    Returns:
        Scalar.
    """
    return moco_pair_means(moco_logits(queries, keys, queue, temperature=temperature)).weighted(global_pair_weight)


def moco_logits(queries: Tensor, keys: Tensor, queue: Tensor, *, temperature: float) -> Tensor:
    """Similarities / temperature ``[V-1, B, 1+Q]``: the key of the same image first, then the queue."""
    queries = full_precision(queries) / temperature  # here, not below: the logits are a hundred times as many
    keys = full_precision(keys.detach())
    positive = torch.einsum("vbd,bd->vb", queries, keys)[..., None]
    return torch.cat([positive, linear(queries, queue.T)], dim=-1)


def moco_pair_means(logits: Tensor) -> PairMeans:
    """The two terms of :func:`moco_loss`: means of -log softmax(logits)₀ of the global and of the local queries."""
    losses = (logits.logsumexp(-1) - logits[..., 0]).mean(-1)  # [V-1], the positive being column 0
    local_mean = losses[1:].mean() if len(losses) > 1 else None
    return PairMeans(losses[0], local_mean, 1 / len(losses))


class MoCo(Method):
    """Query and key network, and the queue of keys.

    The key network starts as a copy of the query network and follows its parameters as an exponential
    mean. Like the original's it runs in training mode, on batch statistics, and its batch-norm buffers
    are its own. So that the statistics do not give away which images share a process with a query, the
    images of all processes are shuffled among them before the key network sees them, and the keys are
    sorted back (MoCo, section 3.3). On one process there is nothing to shuffle among, and with
    synchronized batch norm or none there is nothing to give away: then no image is moved.

    Args:
        query: The network that learns, from images to embeddings ``[B, D]``; its backbone is the one to export.
        key: The same architecture; its weights are overwritten.
        num_local: Local views L, all queries, or 0. Of the two global views the first gives keys, the second queries.
        embedding_dim: Length D of the embeddings.
        temperature: Of the softmax over the key and the queue.
        queue_size: Keys Q in the queue, a multiple of the global batch.
        global_pair_weight: See :func:`moco_loss`.
        koleo_weight: Of :func:`koleo_loss` of the global query's features; 0 leaves it out.
    """

    queue: Tensor
    queue_pointer: Tensor

    def __init__(
        self,
        query: Network[nn.Module],
        key: Network[nn.Module],
        *,
        num_local: int,
        embedding_dim: int,
        temperature: float,
        queue_size: int,
        global_pair_weight: float | None,
        koleo_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.query, self.key = query, key
        key.start_as(query)
        self.register_buffer("queue", F.normalize(torch.randn(embedding_dim, queue_size), dim=0))
        self.register_buffer("queue_pointer", torch.zeros(1, dtype=torch.int64))
        self._seen: list[Tensor] = []
        self.num_local = num_local
        self.temperature = temperature
        self.global_pair_weight = global_pair_weight
        self.koleo_weight = koleo_weight

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The query and the key network's backbone."""
        return {"query": self.query.backbone, "key": self.key.backbone}

    def begin_step(self, values: StepValues) -> None:
        """Move the key network towards the query network."""
        self._seen.clear()
        self.key.follow(self.query, momentum=values.momentum)

    def forward(self, global_views: Tensor, local_views: Tensor | None, values: StepValues) -> StepOutput:
        """The loss of the second global and all local views against the keys of the first global view.

        ``scalars``: ``global_loss`` and ``local_loss``, the two terms of the loss; ``key_similarity``: mean cosine of
        the global query and its key; ``contrast_top1``: share of the global queries that are nearest
        to their own key, in percent; with ``koleo_weight``, ``koleo_loss`` before it is weighted.
        """
        batch = images_per_view(global_views, local_views, num_global=2, num_local=self.num_local)
        keys = self.embed_keys(global_views[:batch])
        self._seen.append(keys)
        features, embeddings = self.query(global_views[batch:], local_views)
        with torch.autocast(global_views.device.type, enabled=False):
            queries = unit_rows(embeddings).reshape(-1, batch, embeddings.shape[1])
            logits = moco_logits(queries, keys, self.queue, temperature=self.temperature)
        means = moco_pair_means(logits)
        first = logits[0].detach()
        indicators = {
            "key_similarity": first[:, 0].mean() * self.temperature,
            "contrast_top1": 100.0 * (first.argmax(-1) == 0).to(first.dtype).mean(),
        }
        loss = means.weighted(self.global_pair_weight)
        if self.koleo_weight:
            koleo = koleo_loss(features[:batch])
            loss = loss + self.koleo_weight * koleo
            indicators["koleo_loss"] = koleo.detach()
        return StepOutput(loss, indicators | means.scalars, full_precision(features[:batch].detach()))

    @torch.no_grad()
    def embed_keys(self, views: Tensor) -> Tensor:
        """Keys ``[B, D]``, L2-normalized, of this process's views ``[B, 3, S, S]``."""
        if num_processes() == 1 or not _has_statistics_of_its_own(self.key):
            return unit_rows(self.key(views)[1])
        shuffled = gather_rows(views)
        order = torch.randperm(len(shuffled), device=views.device)
        dist.broadcast(order, src=0)
        own = slice(process_rank() * len(views), (process_rank() + 1) * len(views))
        keys = gather_rows(unit_rows(self.key(shuffled[order[own]])[1]))
        return keys[order.argsort()[own]]

    @torch.no_grad()
    def end_step(self, values: StepValues) -> None:
        """Write this step's keys of all processes over the oldest ones."""
        assert self._seen
        keys = gather_rows(torch.cat(self._seen))
        columns = (self.queue_pointer + torch.arange(len(keys), device=keys.device)) % self.queue.shape[1]
        self.queue[:, columns] = keys.T.to(self.queue.dtype)
        self.queue_pointer.copy_((self.queue_pointer + len(keys)) % self.queue.shape[1])
        self._seen.clear()


def _has_statistics_of_its_own(network: nn.Module) -> bool:
    """Whether batch norm sees the images of one process only."""
    return any(isinstance(m, _BatchNorm) and not isinstance(m, nn.SyncBatchNorm) for m in network.modules())
