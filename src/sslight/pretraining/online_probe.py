"""The method and, beside it, an optional linear classifier on its detached features."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslight.methods import Method, StepValues


class MethodWithProbe(nn.Module):
    """One module for DDP: the self-supervised method and the online linear probe.

    The probe sees detached features, so no gradient reaches the backbone; its parameters are
    trained by the method's optimizer, as in the original's joint linear probe.
    """

    def __init__(self, method: Method, *, num_features: int, num_classes: int | None) -> None:
        super().__init__()
        self.method = method
        self.probe = None
        if num_classes is not None:
            self.probe = nn.Linear(num_features, num_classes)
            nn.init.normal_(self.probe.weight, std=0.01)
            nn.init.zeros_(self.probe.bias)

    def forward(
        self, global_views: Tensor, local_views: Tensor | None, labels: Tensor | None, values: StepValues
    ) -> dict[str, Any]:
        """Loss to minimize and what to show.

        Returns:
            ``loss`` (with the probe's cross-entropy, for backward), ``scalars`` (detached, on the
            device: ``loss`` of the method alone, and its indicators) and ``features`` ``[B, num_features]``.
        """
        out = self.method(global_views, local_views, values)
        scalars = {"loss": out.loss.detach(), **out.scalars}
        loss = out.loss
        if self.probe is not None:
            assert labels is not None
            with torch.autocast(global_views.device.type, enabled=False):
                logits = self.probe(out.features.to(self.probe.weight.dtype))
            probe_loss = F.cross_entropy(logits, labels)
            loss = loss + probe_loss
            scalars["probe_loss"] = probe_loss.detach()
            scalars["probe_top1"] = 100.0 * (logits.argmax(1) == labels).float().mean()
        return {"loss": loss, "scalars": scalars, "features": out.features}
