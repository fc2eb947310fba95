"""Clipping tensor by tensor."""

import pytest
import torch
from torch import nn

from sslight.optim import clip_gradients


def test_each_gradient_is_clipped_by_itself() -> None:
    large, small, without = (nn.Parameter(torch.zeros(n)) for n in (4, 3, 2))
    large.grad = torch.full((4,), 3.0)
    small.grad = torch.tensor([0.1, 0.0, 0.2])
    before = small.grad.clone()
    clip_gradients([large, small, without], 0.5)
    assert float(large.grad.norm()) == pytest.approx(0.5 * 6.0 / (6.0 + 1e-6), rel=1e-6)
    assert torch.equal(small.grad, before)
    assert without.grad is None


def test_no_gradients_are_no_error() -> None:
    parameter = nn.Parameter(torch.ones(2))
    clip_gradients([parameter], 1.0)
    assert parameter.grad is None
