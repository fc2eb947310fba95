"""A classifier in training with the weights that are kept of it."""

import copy

import torch
from torch import Tensor, nn

from sslight.finetuning.classifier import Classifier


class SelectedClassifier(nn.Module):
    """A classifier and those of its weights that are kept by a score; all in ``state_dict()``.

    ``classifier`` is trained, in place. If it is not ``scored``, the last weights are kept.
    """

    best_score: Tensor  # and its standard error
    noted: Tensor  # the number of scores, and that of the one whose weights are kept, both from 0

    def __init__(self, classifier: Classifier, *, scored: bool) -> None:
        super().__init__()
        self.classifier = classifier
        self.kept = copy.deepcopy(classifier).requires_grad_(False) if scored else None
        self.register_buffer("best_score", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("noted", torch.tensor([0, 0]))

    def forward(self, x: Tensor) -> Tensor:
        """Normalized images ``[B, 3, H, W]`` → logits ``[B, C]``."""
        logits: Tensor = self.classifier(x)
        return logits

    @property
    def best(self) -> Classifier:
        """What the run gives."""
        return self.classifier if self.kept is None else self.kept

    def note(self, score: float, standard_error: float) -> None:
        """Keep the weights of now if their score is within one standard error of the best so far (that of the best).

        The rate falls to 0, so that later weights are the better ones where scores hardly tell them apart (the rule of
        one standard error: Breiman et al., Classification and Regression Trees, 1984, section 3.4.3).
        """
        best, error = self.best_score.tolist()
        if self.kept is not None and score >= best - error:
            if score > best:
                self.best_score.copy_(torch.tensor([score, standard_error]))
            self.kept.load_state_dict(self.classifier.state_dict())
            self.noted[1] = self.noted[0]
        self.noted[0] += 1
