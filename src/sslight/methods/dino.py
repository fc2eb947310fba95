"""DINO: self-distillation without labels (Caron et al., ICCV 2021), with SSLight's weighting of pairs."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslight.methods.heads import DINOHead
from sslight.methods.method import Method, StepOutput, StepValues
from sslight.methods.network import Network
from sslight.methods.pairs import combine_pair_means, cross_view_means
from sslight.methods.precision import full_precision
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
    """Cross-entropy of the student's views with the teacher's centred and sharpened targets.

    Pairs of a view with itself are left out. Computed in float32 or, from float64, in float64.

    Args:
        student_logits: ``[V, B, K]``, global views first.
        teacher_logits: ``[G, B, K]`` of the global views; no gradient flows into them.
        center: ``[K]``.
        student_temp: Temperature of the student's softmax.
        teacher_temp: Temperature of the teacher's softmax.
        global_pair_weight: w of w · mean over global–global pairs + (1 - w) · mean over global–local
            pairs (SSLight); None is the plain mean over all pairs (DINO, equation 3). Without
            local views, V = G, it has no effect.

    Returns:
        Scalar.
    """
    global_mean, local_mean = dino_pair_means(
        student_logits, teacher_logits, center, student_temp=student_temp, teacher_temp=teacher_temp
    )
    num_global = len(teacher_logits)
    return combine_pair_means(
        global_mean,
        local_mean,
        num_global=num_global,
        num_local=len(student_logits) - num_global,
        global_pair_weight=global_pair_weight,
    )


def dino_pair_means(
    student_logits: Tensor,
    teacher_logits: Tensor,
    center: Tensor,
    *,
    student_temp: float,
    teacher_temp: float,
) -> tuple[Tensor, Tensor | None]:
    """The two terms of :func:`dino_loss`: means over global–global and over global–local pairs.

    The second is None without local views.
    """
    targets = dino_targets(teacher_logits, center, teacher_temp)
    log_probs = F.log_softmax(full_precision(student_logits) / student_temp, dim=-1)
    return cross_view_means(log_probs, targets)


@torch.no_grad()
def dino_targets(teacher_logits: Tensor, center: Tensor, teacher_temp: float) -> Tensor:
    """The teacher's probabilities softmax((logits - center) / temperature), ``[G, B, K]``."""
    return F.softmax((full_precision(teacher_logits) - center) / teacher_temp, dim=-1)


def update_center(center: Tensor, teacher_logits: Tensor, *, momentum: float) -> Tensor:
    """The new centre: an exponential mean of the teacher's logits (DINO, equation 4).

    Args:
        center: ``[K]``.
        teacher_logits: ``[G, B, K]``; every process has the same number of rows.
        momentum: Share of the old centre kept.

    Returns:
        ``[K]``, the same on all processes.
    """
    return _blend(center, full_precision(teacher_logits.detach()).mean((0, 1)), momentum)


def _blend(center: Tensor, batch_mean: Tensor, momentum: float) -> Tensor:
    return center * momentum + mean_over_processes(batch_mean) * (1 - momentum)


class DINO(Method):
    """Student, teacher and centre.

    The teacher starts as a copy of the student and follows its parameters as an exponential mean. Like
    the original's it runs in training mode, on batch statistics, and its batch-norm buffers are its own.

    Args:
        student_backbone: Maps ``[B, 3, H, W]`` to ``[B, num_features]``; the one to export.
        teacher_backbone: The same architecture (without drop path); its weights are overwritten.
        num_features: Length of the features.
        num_global: Global views G, at least 2.
        num_local: Local views L, or 0.
        head_layers: For these six see :class:`~sslight.methods.heads.DINOHead`.
        head_hidden_dim: Width of the head's hidden layers.
        head_bottleneck_dim: Width of the head's normalised output.
        head_output_dim: Outputs K.
        head_batch_norm: Batch normalisation in the head.
        norm_last_layer: Keep the norms of the last layer's rows at 1.
        student_temp: Temperature of the student's softmax.
        center_momentum: Share of the centre kept at each step.
        global_pair_weight: See :func:`dino_loss`.
    """

    center: Tensor
    _logit_sum: Tensor

    def __init__(
        self,
        student_backbone: nn.Module,
        teacher_backbone: nn.Module,
        *,
        num_features: int,
        num_global: int,
        num_local: int,
        head_layers: int,
        head_hidden_dim: int,
        head_bottleneck_dim: int,
        head_output_dim: int,
        head_batch_norm: bool,
        norm_last_layer: bool,
        student_temp: float,
        center_momentum: float,
        global_pair_weight: float | None,
    ) -> None:
        super().__init__()

        def build_head() -> DINOHead:
            return DINOHead(
                num_features,
                num_layers=head_layers,
                hidden_dim=head_hidden_dim,
                bottleneck_dim=head_bottleneck_dim,
                output_dim=head_output_dim,
                batch_norm=head_batch_norm,
                norm_last_layer=norm_last_layer,
            )

        self.student = Network(student_backbone, build_head())
        self.teacher = Network(teacher_backbone, build_head())
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.register_buffer("center", torch.zeros(head_output_dim))
        # What the forward passes of this step saw; nothing between steps, hence not part of the state.
        self.register_buffer("_logit_sum", torch.zeros(head_output_dim), persistent=False)
        self._num_logits = 0
        self.num_global = num_global
        self.num_local = num_local
        self.student_temp = student_temp
        self.center_momentum = center_momentum
        self.global_pair_weight = global_pair_weight

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The student's and the teacher's backbone."""
        return {"student": self.student.backbone, "teacher": self.teacher.backbone}

    def frozen_parameters(self, values: StepValues) -> list[nn.Parameter]:
        """The student's last layer while it is frozen."""
        if not values.freeze_last_layer:
            return []
        last_layer = self.student.head.get_submodule("last_layer")
        return [p for p in last_layer.parameters() if p.requires_grad]

    def begin_step(self, values: StepValues) -> None:
        """Forget what an interrupted step saw."""
        self._logit_sum.zero_()
        self._num_logits = 0

    def forward(self, global_views: Tensor, local_views: Tensor | None, values: StepValues) -> StepOutput:
        """The loss of the student against the teacher, which sees the global views only.

        ``scalars``: ``global_loss`` and ``local_loss``, the two terms of the loss; ``teacher_entropy``,
        mean entropy of the teacher's targets as a share of ln K (near 1 or 0: collapse; DINO, figure 7);
        ``target_spread``, entropy of the mean target as a share of ln K (near 0: all images have the
        same target); ``divergence``, mean Kullback–Leibler divergence of student from teacher in nats.
        """
        assert values.teacher_temp is not None
        batch = len(global_views) // self.num_global
        assert len(global_views) == self.num_global * batch
        assert (0 if local_views is None else len(local_views)) == self.num_local * batch
        views = [global_views] if local_views is None else [global_views, local_views]
        features, student_logits = self.student(*views)
        with torch.no_grad():
            _, teacher_logits = self.teacher(global_views)
        student_logits = student_logits.unflatten(0, (-1, batch))
        teacher_logits = teacher_logits.unflatten(0, (-1, batch))
        self._logit_sum += teacher_logits.sum((0, 1))
        self._num_logits += self.num_global * batch
        global_mean, local_mean = dino_pair_means(
            student_logits,
            teacher_logits,
            self.center,
            student_temp=self.student_temp,
            teacher_temp=values.teacher_temp,
        )
        loss = combine_pair_means(
            global_mean,
            local_mean,
            num_global=self.num_global,
            num_local=self.num_local,
            global_pair_weight=self.global_pair_weight,
        )
        scalars = _indicators(dino_targets(teacher_logits, self.center, values.teacher_temp), loss)
        scalars["global_loss"] = global_mean.detach()
        if local_mean is not None:
            scalars["local_loss"] = local_mean.detach()
        return StepOutput(loss=loss, scalars=scalars, features=full_precision(features[:batch].detach()))

    @torch.no_grad()
    def end_step(self, values: StepValues) -> None:
        """Move the centre by what this step's forward passes saw, then the teacher towards the student."""
        assert self._num_logits > 0
        assert values.momentum is not None
        self.center.copy_(_blend(self.center, self._logit_sum / self._num_logits, self.center_momentum))
        teacher: list[Tensor] = list(self.teacher.parameters())
        student: list[Tensor] = list(self.student.parameters())
        torch._foreach_lerp_(teacher, student, 1.0 - values.momentum)


@torch.no_grad()
def _indicators(targets: Tensor, loss: Tensor) -> dict[str, Tensor]:
    """Indicators of the teacher's targets ``[G, B, K]`` and of the loss against them."""
    ln_k = math.log(targets.shape[-1])
    entropy = torch.special.entr(targets).sum(-1).mean()
    spread = torch.special.entr(targets.mean((0, 1))).sum()
    return {
        "teacher_entropy": entropy / ln_k,
        "target_spread": spread / ln_k,
        "divergence": loss.detach() - entropy,
    }
