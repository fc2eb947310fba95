"""What the plan "beyond" tries and the program does not offer: DINO with one part changed, by name.

A run with ``code: candidate NAME`` trains with ``CANDIDATES[NAME]`` in place of :class:`sslight.methods.DINO`. What
proves itself becomes a setting of the program; the rest stays here, so that its numbers can be made again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from sslight.methods import DINO, StepOutput, StepValues, dino_targets, sinkhorn
from sslight.methods.dino import _indicators
from sslight.methods.method import images_per_view
from sslight.methods.numerics import full_precision


class Sinkhorn(DINO):
    """Targets that use all outputs alike by Sinkhorn–Knopp, in place of the center (SwAV 2020, DINOv2 2023)."""

    @torch.no_grad()
    def targets(self, teacher_logits: Tensor, teacher_temp: float) -> Tensor:
        """``[G, B, K]``, each view by itself."""
        return torch.stack([sinkhorn(view, epsilon=teacher_temp, num_iterations=3) for view in teacher_logits])


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


CANDIDATES: dict[str, Callable[..., DINO]] = {
    "sinkhorn": Sinkhorn,
    **{f"entropy-{share}": partial(HeldEntropy, share=share) for share in (0.4, 0.6, 0.8)},
    **{f"sigreg-{weight}": partial(SIGReg, weight=weight) for weight in (0.02, 0.1)},
}


@contextmanager
def candidate(name: str) -> Iterator[None]:
    """Build this candidate wherever the program builds DINO."""
    with patch("sslight.methods.build.DINO", CANDIDATES[name]):
        yield
