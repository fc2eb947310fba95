"""What the plans "beyond" try and the program does not offer: DINO with one part changed, or its views, by name.

A run with ``code: candidate NAME`` trains with ``CANDIDATES[NAME]`` in place of :class:`sslight.methods.DINO`, or with
the views of ``CURRICULA[NAME]``. What proves itself becomes a setting of the program; the rest stays here, so that its
numbers can be made again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from sslight.config import ViewSettings
from sslight.methods import DINO, StepOutput, StepValues, dino_targets, sinkhorn
from sslight.methods.dino import _indicators
from sslight.methods.method import images_per_view
from sslight.methods.numerics import full_precision
from sslight.views import MultiCrop, ViewParameters, build_multi_crop


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


CANDIDATES: dict[str, Callable[..., DINO]] = {
    "sinkhorn": Sinkhorn,
    **{f"entropy-{share}": partial(HeldEntropy, share=share) for share in (0.4, 0.6, 0.8)},
    **{f"sigreg-{weight}": partial(SIGReg, weight=weight) for weight in (0.02, 0.1)},
}
# What differs from the recipe in the easy and in the hard views.
CURRICULA: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rising-scale": ({"global_scale": (0.6, 1.0)}, {}),
    "rising-color": ({"jitter_prob": 0.0}, {"jitter_prob": 0.8, "grayscale_prob": 0.2}),
}
_EPOCHS = 10  # half of the recipe's


@contextmanager
def candidate(name: str) -> Iterator[None]:
    """Build this candidate wherever the program builds DINO or its views."""
    if name in CANDIDATES:
        with patch("sslight.methods.build.DINO", CANDIDATES[name]):
            yield
        return
    easy, hard = CURRICULA[name]

    def build(views: ViewSettings) -> MultiCrop:
        return Curriculum(views.model_copy(update=easy), views.model_copy(update=hard), _EPOCHS)

    with patch("sslight.api.pretrain.build_multi_crop", build):
        yield
