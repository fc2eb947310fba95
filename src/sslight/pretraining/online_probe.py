"""What is measured beside the training: a linear classifier on detached features, and sets of labeled images."""

from contextlib import suppress
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslight.config import PretrainSettings
from sslight.data import Source, SubsetSource, build_training_source, select_subset, source_builder
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


def training_and_labeled(settings: PretrainSettings) -> tuple[Source, Source | None, Source | None]:
    """The images to train on; the labeled ones for kNN, of which measurements compute features; and those to classify.

    The last are None where the second are classified among each other. Both are None if kNN is not measured.
    """
    data, probe = settings.data, settings.probe
    build = partial(source_builder(data), labeled=True)
    if not settings.measures_knn:
        return build_training_source(data, labeled=probe.linear), None, None
    queries = build(data.val, setting="data.val", labels=data.val_labels) if data.val else None
    if probe.train:
        source = build_training_source(data, labeled=probe.linear)
        bank = build(probe.train, setting="probe.train", labels=data.labels)
    else:
        source = bank = _labeled_if_it_can(settings, queries)
        if source.classes is None and queries is not None:
            bank, queries = queries, None
    if bank.labels is not None and len(set(bank.labels.tolist())) < 2:
        name = "probe.train" if probe.train else "data.val" if bank is not source else "data.train"
        raise ValueError(f"{name} has images of one class only, all of which are always right: give at least two.")
    if len(bank) > probe.knn_bank:
        bank = SubsetSource(bank, select_subset(bank, probe.knn_bank / len(bank), settings.seed))
    return source, bank, queries


def _labeled_if_it_can(settings: PretrainSettings, queries: Source | None) -> Source:
    """The training images with labels; without, if they have none and ``queries`` can be measured alone.

    Folders whose names are none of the classes of ``queries`` are no classes either, but years or cameras.
    """
    if queries is None or settings.probe.linear or settings.data.labels is not None:
        return build_training_source(settings.data, labeled=True)
    with suppress(ValueError):
        source = build_training_source(settings.data, labeled=True)
        if set(source.classes or ()) & set(queries.classes or ()):
            return source
    return build_training_source(settings.data, labeled=False)
