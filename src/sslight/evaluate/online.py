"""Accuracy with labels while a network trains: the same sets, the same transform, any number of times."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sslight.config import PretrainSettings
from sslight.data import ReadLimits, Source, loader_workers
from sslight.evaluate.classifiers.knn import knn_classify
from sslight.evaluate.classifiers.logistic import fit_logistic_regression
from sslight.evaluate.features.extract import EvalTransform, Extraction, extract_features
from sslight.train import Placement


def extraction(settings: PretrainSettings, placement: Placement) -> Extraction:
    """How features of labeled images are computed while a network trains; the device is the backbone's."""
    return Extraction(
        workers=0 if placement.accelerator == "cpu" else loader_workers(settings, placement.processes_per_node),
        limits=ReadLimits(settings.data.max_pixels, settings.data.read_timeout),
    )


@dataclass(frozen=True)
class LabeledProbe:
    """kNN and linear accuracy of a backbone: a labeled bank against validation queries.

    Without queries the bank is classified by itself, each image left out of its own vote, and the linear accuracy is
    measured on a held-out fifth.
    """

    bank: Source
    bank_name: str  # the setting that gives it
    bank_labels: npt.NDArray[np.int64]  # [M], in 0 .. num_classes - 1
    queries: Source | None
    query_labels: npt.NDArray[np.int64] | None  # [N], in the same numbering
    num_classes: int
    k: int  # lowered to what the bank allows
    temperature: float
    transform: EvalTransform
    how: Extraction  # its device is that of the backbone
    seed: int  # of the held-out parts

    @property
    def protocol(self) -> str:
        """What is compared with what, in words."""
        bank = f"{len(self.bank)} {'training' if self.bank_name == 'data.train' else 'labeled'} images"
        if self.queries is None:
            return f"leave-one-out on {bank} ({self.bank_name} alone)"
        return f"{len(self.queries)} validation images against {bank}"

    @property
    def sets(self) -> dict[str, Source]:
        """The sets by their settings."""
        return {self.bank_name: self.bank, **({} if self.queries is None else {"data.val": self.queries})}

    @property
    def num_measured(self) -> int:
        """Images of which the kNN accuracy is."""
        return len(self.queries or self.bank)

    def measure(self, backbone: nn.Module, device: torch.device, *, linear: bool) -> dict[str, float]:
        """``{"knn_top1": %, "knn_images": of so many, "linear_top1": %}`` in eval mode; linear only if asked for."""
        bank, bank_labels = self._features(backbone, self.bank, self.bank_labels, device)
        alone = self.queries is None or self.query_labels is None
        queries, query_labels = bank, bank_labels
        if self.queries is not None and self.query_labels is not None:
            queries, query_labels = self._features(backbone, self.queries, self.query_labels, device)
        scores = knn_classify(
            bank,
            bank_labels,
            queries,
            k=min(self.k, len(bank) - alone),
            temperature=self.temperature,
            num_classes=self.num_classes,
            leave_one_out=alone,
        )
        result = {"knn_top1": _top1(scores, query_labels), "knn_images": float(len(queries))}
        if linear and len(bank) >= 5:  # fewer cannot be split
            if alone:
                order = torch.from_numpy(np.random.default_rng(self.seed).permutation(len(bank))).to(device)
                test, train = order[: len(order) // 5], order[len(order) // 5 :]
                bank, queries = bank[train], bank[test]
                bank_labels, query_labels = bank_labels[train], bank_labels[test]
            fitted = fit_logistic_regression(bank, bank_labels, num_classes=self.num_classes, seed=self.seed)
            result["linear_top1"] = _top1(fitted.logits(queries), query_labels)
        return result

    def _features(
        self, backbone: nn.Module, source: Source, labels: npt.NDArray[np.int64], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        features, readable = extract_features(backbone, source, self.transform, replace(self.how, device=device))
        return features[readable], torch.from_numpy(labels).to(device)[readable]


def _top1(scores: Tensor, labels: Tensor) -> float:
    return 100.0 * float((scores.argmax(1) == labels).float().mean())
