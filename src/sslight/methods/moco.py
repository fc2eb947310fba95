"""MoCo-v2 with several views: momentum contrast (He et al., CVPR 2020; Chen et al., 2020), weighted as in SSLight."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslight.backbones import linear
from sslight.methods.heads import projection_mlp
from sslight.methods.method import Method, StepOutput, StepValues
from sslight.methods.network import Network
from sslight.methods.pairs import combine_pair_means
from sslight.methods.precision import full_precision
from sslight.methods.processes import gather_rows, num_processes, process_rank


def moco_loss(
    queries: Tensor, keys: Tensor, queue: Tensor, *, temperature: float, global_pair_weight: float | None
) -> Tensor:
    """InfoNCE of each query view with the key of the same image against the queue (MoCo, equation 1).

    Args:
        queries: ``[V-1, B, D]``, L2-normalised; query 0 is the global view.
        keys: ``[B, D]``, L2-normalised, of the first global view; no gradient flows into them.
        queue: ``[D, Q]``, normalised columns: keys of earlier images.
        temperature: Of the softmax over the key and the queue.
        global_pair_weight: w of w · global query + (1 - w) · mean over the local queries (SSLight, section
            4.2); None is the plain mean over all queries. Without local queries it has no effect.

    Returns:
        Scalar.
    """
    losses = moco_view_losses(moco_logits(queries, keys, queue, temperature=temperature))
    local_mean = losses[1:].mean() if len(losses) > 1 else None
    return combine_pair_means(
        losses[0],
        local_mean,
        num_global=2,  # one global query meets the other global view's key, as each local query does
        num_local=len(losses) - 1,
        global_pair_weight=global_pair_weight,
    )


def moco_logits(queries: Tensor, keys: Tensor, queue: Tensor, *, temperature: float) -> Tensor:
    """Similarities / temperature ``[V-1, B, 1+Q]``: the key of the same image first, then the queue."""
    queries = full_precision(queries) / temperature  # here, not below: the logits are a hundred times as many
    keys = full_precision(keys.detach())
    positive = torch.einsum("vbd,bd->vb", queries, keys)[..., None]
    return torch.cat([positive, linear(queries, queue.T)], dim=-1)


def moco_view_losses(logits: Tensor) -> Tensor:
    """Mean cross-entropy of each query view, ``[V-1]``, the positive being column 0."""
    return (logits.logsumexp(-1) - logits[..., 0]).mean(-1)


class MoCo(Method):
    """Query and key network, and the queue of keys.

    The key network starts as a copy of the query network and follows its parameters as an exponential
    mean. Like the original's it runs in training mode, on batch statistics, and its batch-norm buffers
    are its own. So that the statistics do not give away which images share a process with a query, the
    images of all processes are shuffled among them before the key network sees them, and the keys are
    sorted back (MoCo, section 3.3). On one process there is nothing to shuffle among, and with
    synchronised batch norm or none there is nothing to give away: then no image is moved.

    Args:
        query_backbone: Maps ``[B, 3, H, W]`` to ``[B, num_features]``; the one to export.
        key_backbone: The same architecture; its weights are overwritten.
        num_features: Length of the features.
        num_global: Global views; must be 2: the first gives keys, the second queries.
        num_local: Local views L, all queries, or 0.
        head_layers: Linear layers of the projection head.
        head_hidden_dim: Width of the head's hidden layers.
        head_output_dim: Length D of the embedding.
        head_batch_norm: Batch normalisation in the head.
        temperature: Of the softmax over the key and the queue.
        queue_size: Keys Q in the queue, a multiple of the global batch.
        global_pair_weight: See :func:`moco_loss`.
    """

    queue: Tensor
    queue_pointer: Tensor

    def __init__(
        self,
        query_backbone: nn.Module,
        key_backbone: nn.Module,
        *,
        num_features: int,
        num_global: int,
        num_local: int,
        head_layers: int,
        head_hidden_dim: int,
        head_output_dim: int,
        head_batch_norm: bool,
        temperature: float,
        queue_size: int,
        global_pair_weight: float | None,
    ) -> None:
        super().__init__()
        assert num_global == 2

        def build_head() -> nn.Sequential:
            return projection_mlp(
                num_features,
                num_layers=head_layers,
                hidden_dim=head_hidden_dim,
                out_dim=head_output_dim,
                batch_norm=head_batch_norm,
                activation=nn.ReLU,
            )

        self.query = Network(query_backbone, build_head())
        self.key = Network(key_backbone, build_head())
        self.key.load_state_dict(self.query.state_dict())
        self.key.requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(head_output_dim, queue_size), dim=0))
        self.register_buffer("queue_pointer", torch.zeros(1, dtype=torch.int64))
        self._seen: list[Tensor] = []
        self.num_local = num_local
        self.temperature = temperature
        self.global_pair_weight = global_pair_weight

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The query and the key network's backbone."""
        return {"query": self.query.backbone, "key": self.key.backbone}

    def frozen_parameters(self, values: StepValues) -> list[nn.Parameter]:
        """None."""
        return []

    @torch.no_grad()
    def begin_step(self, values: StepValues) -> None:
        """Move the key network towards the query network."""
        assert values.momentum is not None
        self._seen.clear()
        keys: list[Tensor] = list(self.key.parameters())
        queries: list[Tensor] = list(self.query.parameters())
        torch._foreach_lerp_(keys, queries, 1.0 - values.momentum)

    def forward(self, global_views: Tensor, local_views: Tensor | None, values: StepValues) -> StepOutput:
        """The loss of the second global and all local views against the keys of the first global view.

        ``scalars``: ``global_loss`` and ``local_loss``, the two terms of the loss; ``key_similarity``: mean cosine of
        the global query and its key; ``contrast_top1``: share of the global queries that are nearest
        to their own key, in percent.
        """
        batch = len(global_views) // 2
        assert (0 if local_views is None else len(local_views)) == self.num_local * batch
        key_views, query_views = global_views[:batch], global_views[batch:]
        keys = self.embed_keys(key_views)
        views = [query_views] if local_views is None else [query_views, local_views]
        features, projected = self.query(*views)
        with torch.autocast(global_views.device.type, enabled=False):
            queries = F.normalize(full_precision(projected), dim=1)
            queries = queries.reshape(-1, batch, queries.shape[1])
            logits = moco_logits(queries, keys, self.queue, temperature=self.temperature)
        losses = moco_view_losses(logits)
        local_mean = losses[1:].mean() if self.num_local else None
        loss = combine_pair_means(
            losses[0],
            local_mean,
            num_global=2,
            num_local=self.num_local,
            global_pair_weight=self.global_pair_weight,
        )
        self._seen.append(keys)
        first = logits[0].detach()
        scalars = {
            "global_loss": losses[0].detach(),
            "key_similarity": first[:, 0].mean() * self.temperature,
            "contrast_top1": 100.0 * (first.argmax(-1) == 0).to(first.dtype).mean(),
        }
        if local_mean is not None:
            scalars["local_loss"] = local_mean.detach()
        return StepOutput(loss=loss, scalars=scalars, features=full_precision(features[:batch].detach()))

    @torch.no_grad()
    def embed_keys(self, views: Tensor) -> Tensor:
        """Keys ``[B, D]``, L2-normalised, of this process's views ``[B, 3, S, S]``."""
        if num_processes() == 1 or not _has_statistics_of_its_own(self.key):
            return self._normalized_keys(views)
        shuffled = gather_rows(views)
        order = torch.randperm(len(shuffled), device=views.device)
        dist.broadcast(order, src=0)
        own = slice(process_rank() * len(views), (process_rank() + 1) * len(views))
        keys = gather_rows(self._normalized_keys(shuffled[order[own]]))
        return keys[order.argsort()[own]]

    def _normalized_keys(self, views: Tensor) -> Tensor:
        _, projected = self.key(views)
        with torch.autocast(views.device.type, enabled=False):
            return F.normalize(full_precision(projected), dim=1)

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
