"""What the plans "beyond" try and the program does not offer: a method with one part changed, or its views, by name.

A run with ``code: candidate NAME`` trains with ``DINOS[NAME]`` in place of :class:`sslight.methods.DINO`, with
``MOCOS[NAME]`` in place of :class:`sslight.methods.MoCo` or with ``MOCO_LOSSES[NAME]`` as its loss, with the first
weights of ``STARTS[NAME]``, or the views of ``CURRICULA[NAME]``. What proves itself becomes a setting of the program;
the rest stays here, so that its numbers can be made again.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import Tensor, nn

from sslight.backbones import initialize_smoothly
from sslight.config import ViewSettings
from sslight.methods import DINO, MoCo, StepOutput, StepValues, dino_targets, moco_logits, moco_pair_means, sinkhorn
from sslight.methods.dino import _indicators
from sslight.methods.method import images_per_view
from sslight.methods.numerics import full_precision, unit_rows
from sslight.methods.pairs import PairMeans
from sslight.views import MultiCrop, ViewParameters, build_multi_crop


class Sinkhorn(DINO):
    """Targets that use all outputs alike by Sinkhorn–Knopp, in place of the center (SwAV 2020, DINOv2 2023)."""

    @torch.no_grad()
    def targets(self, teacher_logits: Tensor, teacher_temp: float) -> Tensor:
        """``[G, B, K]``, each view by itself."""
        return torch.stack([sinkhorn(view, epsilon=teacher_temp, num_iterations=3) for view in teacher_logits])


class JointSinkhorn(DINO):
    """The same over both global views together, as in DINOv2."""

    @torch.no_grad()
    def targets(self, teacher_logits: Tensor, teacher_temp: float) -> Tensor:
        """``[G, B, K]``."""
        together = sinkhorn(teacher_logits.flatten(0, 1), epsilon=teacher_temp, num_iterations=3)
        return together.view_as(teacher_logits)


class LowFirst(DINO):
    """Views of three quarters of their side until half of the way, full ones after it (after FastDINOv2, 2025)."""

    def forward(self, global_views: Tensor, local_views: Tensor | None, values: StepValues) -> StepOutput:
        """See the class."""
        if _far(values) < 1:
            global_views = _smaller(global_views)
            local_views = None if local_views is None else _smaller(local_views)
        return super().forward(global_views, local_views, values)


def _far(values: StepValues) -> float:
    """0 at the start, 1 from half of the way on; the teacher's momentum tells, a cosine from 0.99 to 1."""
    assert values.momentum is not None
    return min(1.0, (values.momentum - 0.99) / 0.005)


def _smaller(views: Tensor) -> Tensor:
    smaller = F.interpolate(full_precision(views), scale_factor=0.75, mode="bilinear", antialias=True)
    return smaller.to(views.dtype)


class GlobalFirst(DINO):
    """Global–global pairs weigh 0.8 at first and 0.4, as in the recipe, from half of the way on."""

    def begin_step(self, values: StepValues) -> None:
        """See the class."""
        super().begin_step(values)
        self.global_pair_weight = 0.8 - 0.4 * _far(values)


class OneTarget(DINO):
    """The teacher sees one global view, the first and the second in turn: half of its passes."""

    turn = 0

    def forward(self, global_views: Tensor, local_views: Tensor | None, values: StepValues) -> StepOutput:
        """Cross-entropy of the other global view and of the local ones with the targets of this one."""
        assert values.teacher_temp is not None
        assert self.global_pair_weight is not None
        batch = images_per_view(global_views, local_views, num_global=self.num_global, num_local=self.num_local)
        turn, self.turn = self.turn, 1 - self.turn
        features, logits = self.student(global_views, local_views)
        with torch.no_grad():
            _, seen = self.teacher(global_views[turn * batch : (turn + 1) * batch])
        self._logit_sum += seen.sum(0)
        self._num_logits += batch
        targets = self.targets(seen[None], values.teacher_temp)
        log_p = F.log_softmax(full_precision(logits.unflatten(0, (-1, batch))) / self.student_temp, dim=-1)
        means = -(log_p * targets).sum(-1).mean(-1)  # [V]
        loss = self.global_pair_weight * means[1 - turn] + (1 - self.global_pair_weight) * means[2:].mean()
        return StepOutput(loss, _indicators(targets, loss), full_precision(features[:batch].detach()))


class HeldEntropy(DINO):
    """The teacher's temperature is what gives its targets a mean entropy of ``share`` · ln K, at each step."""

    def __init__(self, *networks: Any, share: float, **settings: Any) -> None:
        super().__init__(*networks, **settings)
        self.share = share

    @torch.no_grad()
    def targets(self, teacher_logits: Tensor, teacher_temp: float) -> Tensor:
        """``[G, B, K]``; the temperature is found by bisection between a tenth and ten times the given one."""
        wanted = self.share * torch.tensor(float(teacher_logits.shape[-1])).log()
        low, high = teacher_temp / 10, teacher_temp * 10
        for _ in range(12):
            middle = (low * high) ** 0.5
            entropy = torch.special.entr(dino_targets(teacher_logits, self.center, middle)).sum(-1).mean()
            low, high = (middle, high) if entropy < wanted else (low, middle)
        return dino_targets(teacher_logits, self.center, (low * high) ** 0.5)


class SIGReg(DINO):
    """No teacher: views of an image agree, and all embeddings together are normal (LeJEPA, Balestriero & LeCun 2025).

    Loss: ``weight`` · Epps–Pulley statistic of ``slices`` random projections, mean over views, + (1 - ``weight``) ·
    squared distance of every view's embedding from the mean of the image's global ones. The embedding is the output of
    the head's MLP (``dino.head_bottleneck_dim``). The indicators of the targets are of the embeddings' softmax and say
    nothing; the teacher is built and not used.
    """

    def __init__(self, *networks: Any, weight: float, slices: int = 256, **settings: Any) -> None:
        super().__init__(*networks, **settings)
        self.weight, self.slices = weight, slices
        for parameter in self.student.head.last_layer.parameters():
            parameter.requires_grad_(False)

    def forward(self, global_views: Tensor, local_views: Tensor | None, values: StepValues) -> StepOutput:
        """See the class."""
        batch = images_per_view(global_views, local_views, num_global=self.num_global, num_local=self.num_local)
        backbone = self.student.backbone
        features = torch.cat([backbone(views) for views in (global_views, local_views) if views is not None])
        embeddings = full_precision(self.student.head.mlp(features))
        embeddings = embeddings.view(-1, batch, embeddings.shape[-1])
        agreement = (embeddings - embeddings[: self.num_global].mean(0)).square().mean()
        loss = self.weight * self._not_normal(embeddings) + (1 - self.weight) * agreement
        indicators = _indicators(embeddings.detach().softmax(-1), loss)
        return StepOutput(loss, indicators, full_precision(features[:batch].detach()))

    def _not_normal(self, embeddings: Tensor) -> Tensor:
        """Epps–Pulley: squared distance of the empirical characteristic function from the normal one, times N."""
        directions = F.normalize(torch.randn(embeddings.shape[-1], self.slices, device=embeddings.device), dim=0)
        points = torch.linspace(0, 3, 17, device=embeddings.device)
        normal = (-points.square() / 2).exp()
        angles = (embeddings @ directions)[..., None] * points  # [V, B, slices, points]
        distance = (angles.cos().mean(1) - normal).square() + angles.sin().mean(1).square()
        return 2 * torch.trapezoid(distance * normal, points).mean() * embeddings.shape[1]

    def end_step(self, values: StepValues) -> None:
        """Nothing moves but by the optimizer."""


class Symmetric(MoCo):
    """Both global views give keys, each is the query of the other, and local views are queries of both.

    The loss of MoCo-v3 (Chen et al., ICCV 2021) with the queue of MoCo-v2, which takes the first view's keys.
    """

    def forward(self, global_views: Tensor, local_views: Tensor | None, values: StepValues) -> StepOutput:
        """See the class; the indicators are of the first view's keys, as in MoCo."""
        output = super().forward(global_views, local_views, values)
        batch = len(output.features)
        keys = self.embed_keys(global_views[batch:])
        _, embeddings = self.query(global_views[:batch], local_views)
        with torch.autocast(global_views.device.type, enabled=False):
            queries = unit_rows(embeddings).reshape(-1, batch, embeddings.shape[1])
            logits = moco_logits(queries, keys, self.queue, temperature=self.temperature)
        turned = moco_pair_means(logits).weighted(self.global_pair_weight)
        return StepOutput((output.loss + turned) / 2, output.scalars, output.features)


class Curriculum(MultiCrop):
    """Views that become harder, in equal steps from ``easy`` to ``hard``.

    Args:
        easy: Settings of the views in the first epoch.
        hard: Those from epoch number ``epochs`` on; sizes and numbers of views are the same.
        epochs: How many.
    """

    def __init__(self, easy: ViewSettings, hard: ViewSettings, epochs: int) -> None:
        super().__init__(**hard.model_dump(exclude={"mean", "std"}))
        self.stages = [build_multi_crop(_between(easy, hard, epoch / epochs)) for epoch in range(epochs + 1)]

    def draw(self, height: int, width: int, key: Sequence[int]) -> ViewParameters:
        """See :class:`MultiCrop`; ``key`` is (seed, epoch, index)."""
        return self.stages[min(key[1], len(self.stages) - 1)].draw(height, width, key)


def _between(easy: ViewSettings, hard: ViewSettings, share: float) -> ViewSettings:
    """The views at a share of the way."""

    def of(one: Any, other: Any) -> Any:
        if isinstance(one, tuple):
            return tuple(of(a, b) for a, b in zip(one, other, strict=True))
        return one if one == other else one + share * (other - one)

    values = {name: of(value, getattr(hard, name)) for name, value in easy}
    return ViewSettings(**values)


def smoothed_pair_means(logits: Tensor, *, share: float) -> PairMeans:
    """:func:`sslight.methods.moco_pair_means` with a ``share`` of the label spread evenly over the keys of the queue.

    Plain label smoothing, after the name of Light-MoCo's smoothed InfoNCE (arXiv 2212.07158); not its equation.
    """
    aims = (1 - share) * logits[..., 0] + share * logits[..., 1:].mean(-1)
    return _pair_means(logits.logsumexp(-1) - aims)


def decoupled_pair_means(logits: Tensor) -> PairMeans:
    """:func:`sslight.methods.moco_pair_means` without the image's own key in the sum (Yeh et al., ECCV 2022)."""
    return _pair_means(logits[..., 1:].logsumexp(-1) - logits[..., 0])


def _pair_means(losses: Tensor) -> PairMeans:
    """Of the losses ``[V-1, B]`` of the queries, the global one first."""
    means = losses.mean(-1)
    return PairMeans(means[0], means[1:].mean() if len(means) > 1 else None, 1 / len(means))


def zero_residuals(backbone: nn.Module) -> None:
    """The smooth start with the last scale of every residual branch at 0 (Goyal et al., 2017)."""
    initialize_smoothly(backbone)
    for block in backbone.modules():
        if isinstance(block, InvertedResidual | DepthwiseSeparableConv) and block.has_skip:
            nn.init.zeros_((block.bn3 if isinstance(block, InvertedResidual) else block.bn2).weight)


DINOS: dict[str, Callable[..., DINO]] = {
    "sinkhorn": Sinkhorn,
    "joint-sinkhorn": JointSinkhorn,
    "low-first": LowFirst,
    "global-first": GlobalFirst,
    "one-target": OneTarget,
    **{f"entropy-{share}": partial(HeldEntropy, share=share) for share in (0.4, 0.6, 0.8)},
    **{f"sigreg-{weight}": partial(SIGReg, weight=weight) for weight in (0.02, 0.1)},
}
MOCOS: dict[str, Callable[..., MoCo]] = {"symmetric": Symmetric}
MOCO_LOSSES = {
    "decoupled": decoupled_pair_means,
    **{f"smooth-{share}": partial(smoothed_pair_means, share=share) for share in (0.1, 0.2)},
}
STARTS = {"zero-residuals": zero_residuals}
# What differs from the recipe in the easy and in the hard views.
CURRICULA: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rising-scale": ({"global_scale": (0.6, 1.0)}, {}),
    "rising-color": ({"jitter_prob": 0.0}, {"jitter_prob": 0.8, "grayscale_prob": 0.2}),
    "rising-mild-color": ({"jitter_prob": 0.0}, {}),
}
_EPOCHS = 10  # half of the recipe's


def candidate(name: str, method: str) -> AbstractContextManager[Any]:
    """Build this candidate wherever the program builds the method, its weights or its views.

    Raises:
        ValueError: there is no such candidate for the method.
    """
    if name in DINOS and method == "dino":
        return patch("sslight.methods.build.DINO", DINOS[name])
    if name in MOCOS and method == "moco":
        return patch("sslight.methods.build.MoCo", MOCOS[name])
    if name in MOCO_LOSSES and method == "moco":
        return patch("sslight.methods.moco.moco_pair_means", MOCO_LOSSES[name])
    if name in STARTS:
        return patch("sslight.methods.build.initialize_smoothly", STARTS[name])
    if name in CURRICULA:
        easy, hard = CURRICULA[name]

        def build(views: ViewSettings) -> MultiCrop:
            return Curriculum(views.model_copy(update=easy), views.model_copy(update=hard), _EPOCHS)

        return patch("sslight.api.pretrain.build_multi_crop", build)
    raise ValueError(f"there is no candidate {name} of {method} in candidates.py.")
