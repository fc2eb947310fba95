"""A classifier in training with the weights that are kept of it."""

import copy
import math

import torch
from torch import Tensor, nn

from sslight.finetuning.classifier import Classifier


class SelectedClassifier(nn.Module):
    """A classifier and those of its weights that are kept by a score; all in ``state_dict()``.

    ``classifier`` is trained, in place. ``num_scored`` is the number of images that a score is of; with 0 there are no
    scores, and the last weights are kept.
    """

    best_score: Tensor
    noted: Tensor  # the number of scores, and that of the one whose weights are kept, both from 0

    def __init__(self, classifier: Classifier, *, num_scored: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.kept = copy.deepcopy(classifier).requires_grad_(False) if num_scored else None
        self._margin = 50 / math.sqrt(max(1, num_scored))  # the standard error of a share, at most, in points
        self.register_buffer("best_score", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("noted", torch.tensor([0, 0]))

    def forward(self, x: Tensor) -> Tensor:
        """Normalized images ``[B, 3, H, W]`` → logits ``[B, C]``."""
        logits: Tensor = self.classifier(x)
        return logits

    @property
    def best(self) -> Classifier:
        """What the run gives."""
        return self.classifier if self.kept is None else self.kept

    def note(self, score: float) -> None:
        """Keep the weights of now, unless earlier ones had a higher score (0–100) by more than its standard error.

        The rate falls to 0, so that later weights are the better ones where scores hardly tell them apart.
        """
        if self.kept is not None and score >= float(self.best_score) - self._margin:
            self.best_score.clamp_(min=score)
            self.kept.load_state_dict(self.classifier.state_dict())
            self.noted[1] = self.noted[0]
        self.noted[0] += 1
