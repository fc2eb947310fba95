"""DINO: self-distillation without labels (Caron et al., ICCV 2021), with SSLight's weighting of pairs."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslight.methods.heads import DINOHead
from sslight.methods.koleo import koleo_loss
from sslight.methods.method import Method, StepOutput, StepValues, images_per_view
from sslight.methods.network import Network
from sslight.methods.numerics import full_precision
from sslight.methods.pairs import PairMeans, cross_view_means
from sslight.methods.processes import mean_over_processes


def dino_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    center: Tensor,
    *,
    student_temp: float,
    teacher_temp: float,
    global_pair_weight: float | None,
) -> Tensor:
    """Cross-entropy of the student's views with the teacher's centerd and sharpened targets (DINO, equation 3).

    Pairs of a view with itself are left out. Computed in float32 or, from float64, in float64.

    Args:
        student_logits: ``[V, B, K]``, global views first.
        teacher_logits: ``[G, B, K]`` of the global views; no gradient flows into them.
        center: ``[K]``.
        student_temp: Temperature of the student's softmax.
        teacher_temp: Temperature of the teacher's softmax.
        global_pair_weight: w of w · mean over global–global pairs + (1 - w) · mean over global–local pairs (SSLight);
            None is the plain mean over all pairs (DINO). Without local views, V = G, it has no effect.

    Returns:
        Scalar.
    """
    temps = {"student_temp": student_temp, "teacher_temp": teacher_temp}
    return dino_pair_means(student_logits, teacher_logits, center, **temps).weighted(global_pair_weight)


def dino_pair_means(
    student_logits: Tensor, teacher_logits: Tensor, center: Tensor, *, student_temp: float, teacher_temp: float
) -> PairMeans:
    """The two terms of :func:`dino_loss`: means of H(P_t, P_s) over global–global and over global–local pairs."""
    p_t = dino_targets(teacher_logits, center, teacher_temp)
    log_p_s = F.log_softmax(full_precision(student_logits) / student_temp, dim=-1)
    return cross_view_means(log_p_s, p_t)


@torch.no_grad()
def dino_targets(teacher_logits: Tensor, center: Tensor, teacher_temp: float) -> Tensor:
    """The teacher's probabilities P_t = softmax((logits - center) / temperature), ``[G, B, K]``."""
    return F.softmax((full_precision(teacher_logits) - center) / teacher_temp, dim=-1)


def update_center(center: Tensor, teacher_logits: Tensor, *, momentum: float) -> Tensor:
    """The new center: an exponential mean of the teacher's logits (DINO, equation 4).

    Args:
        center: ``[K]``.
        teacher_logits: ``[G, B, K]``; every process has the same number of rows.
        momentum: Share of the old center kept.

    Returns:
        ``[K]``, the same on all processes.
    """
    batch_mean = full_precision(teacher_logits.detach()).mean((0, 1))
    return center * momentum + mean_over_processes(batch_mean) * (1 - momentum)


class DINO(Method):
    """Student, teacher and center.

    The teacher starts as a copy of the student and follows its parameters as an exponential mean. Like
    the original's it runs in training mode, on batch statistics, and its batch-norm buffers are its own.

    Args:
        student: The network that learns; its backbone is the one to export.
        teacher: The same architecture (without drop path); its weights are overwritten.
        num_global: Global views G, at least 2.
        num_local: Local views L, or 0.
        student_temp: Temperature of the student's softmax.
        center_momentum: Share of the center kept at each step.
        global_pair_weight: See :func:`dino_loss`.
        koleo_weight: Of :func:`koleo_loss` of the student's features of the first global view; 0 leaves it out.
    """

    center: Tensor
    _logit_sum: Tensor

    def __init__(
        self,
        student: Network[DINOHead],
        teacher: Network[DINOHead],
        *,
        num_global: int,
        num_local: int,
        student_temp: float,
        center_momentum: float,
        global_pair_weight: float | None,
        koleo_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher
        teacher.start_as(student)
        output_dim = len(student.head.last_layer.weight_v)
        self.register_buffer("center", torch.zeros(output_dim))
        # Outputs of this step; empty between steps, so not part of the state.
        self.register_buffer("_logit_sum", torch.zeros(output_dim), persistent=False)
        self._num_logits = 0
        self.num_global, self.num_local = num_global, num_local
        self.student_temp = student_temp
        self.center_momentum = center_momentum
        self.global_pair_weight = global_pair_weight
        self.koleo_weight = koleo_weight

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The student's and the teacher's backbone."""
        return {"student": self.student.backbone, "teacher": self.teacher.backbone}

    def frozen_parameters(self, values: StepValues) -> list[nn.Parameter]:
        """The student's last layer while it is frozen."""
        last_layer = self.student.head.last_layer
        return [p for p in last_layer.parameters() if p.requires_grad] if values.freeze_last_layer else []

    def begin_step(self, values: StepValues) -> None:
        """Forget what an interrupted step recorded."""
        self._logit_sum.zero_()
        self._num_logits = 0

    def forward(self, global_views: Tensor, local_views: Tensor | None, values: StepValues) -> StepOutput:
        """The loss of the student against the teacher, which sees the global views only.

        ``scalars``: ``global_loss`` and ``local_loss``, the two terms of DINO's loss; ``teacher_entropy``,
        mean entropy of the teacher's targets as a share of ln K (near 1 or 0: collapse; DINO, figure 7);
        ``target_spread``, entropy of the mean target as a share of ln K (near 0: all images have the
        same target); ``divergence``, mean Kullback–Leibler divergence of student from teacher in nats;
        with ``koleo_weight``, ``koleo_loss`` before it is weighted.
        """
        assert values.teacher_temp is not None
        batch = images_per_view(global_views, local_views, num_global=self.num_global, num_local=self.num_local)
        features, student_logits = self.student(global_views, local_views)
        with torch.no_grad():
            _, teacher_logits = self.teacher(global_views)
        student_logits = student_logits.unflatten(0, (-1, batch))
        teacher_logits = teacher_logits.unflatten(0, (-1, batch))
        self._logit_sum += teacher_logits.sum((0, 1))
        self._num_logits += self.num_global * batch
        targets = self.targets(teacher_logits, values.teacher_temp)
        means = cross_view_means(F.log_softmax(full_precision(student_logits) / self.student_temp, dim=-1), targets)
        loss = means.weighted(self.global_pair_weight)
        indicators = _indicators(targets, loss)
        if self.koleo_weight:
            koleo = koleo_loss(features[:batch])
            loss = loss + self.koleo_weight * koleo
            indicators["koleo_loss"] = koleo.detach()
        return StepOutput(loss, indicators | means.scalars, full_precision(features[:batch].detach()))

    def targets(self, teacher_logits: Tensor, teacher_temp: float) -> Tensor:
        """What the student is to predict: see :func:`dino_targets`."""
        return dino_targets(teacher_logits, self.center, teacher_temp)

    @torch.no_grad()
    def end_step(self, values: StepValues) -> None:
        """Update the center with this step's outputs, then move the teacher towards the student."""
        assert self._num_logits > 0
        seen = (self._logit_sum / self._num_logits)[None, None]
        self.center.copy_(update_center(self.center, seen, momentum=self.center_momentum))
        self.teacher.follow(self.student, momentum=values.momentum)


@torch.no_grad()
def _indicators(targets: Tensor, loss: Tensor) -> dict[str, Tensor]:
    """Indicators of the teacher's targets ``[G, B, K]`` and of the loss against them."""
    ln_k = math.log(targets.shape[-1])
    entropy = torch.special.entr(targets).sum(-1).mean()
    spread = torch.special.entr(targets.mean((0, 1))).sum()
    return {"teacher_entropy": entropy / ln_k, "target_spread": spread / ln_k, "divergence": loss.detach() - entropy}
