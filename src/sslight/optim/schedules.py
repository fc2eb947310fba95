"""Schedules: values by step, in double precision and without state."""

import math
from collections.abc import Sequence


def cosine_schedule(
    step: int,
    *,
    base: float,
    final: float,
    total_steps: int,
    warmup_steps: int = 0,
    warmup_start: float = 0.0,
) -> float:
    """The value at a step of a linear warm-up followed by half a cosine wave.

    The warm-up spaces ``warmup_steps`` values evenly from ``warmup_start`` to ``base``, both included, and
    the wave starts at ``base``, so the peak comes twice; ``final`` is approached and reached only at
    ``total_steps``. Loshchilov & Hutter, ICLR 2017, and the original.

    Args:
        step: Counted from 0; from ``total_steps`` on the value is ``final``.
        base: Value after the warm-up.
        final: Value at the end; above ``base`` the schedule rises.
        total_steps: Length of warm-up and wave together.
        warmup_steps: Length of the warm-up.
        warmup_start: First value of the warm-up.
    """
    if step < warmup_steps:
        return _warmup(step, base, warmup_steps, warmup_start)
    if step >= total_steps:
        return final
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return final + 0.5 * (base - final) * (1.0 + math.cos(math.pi * progress))


def multistep_schedule(
    step: int,
    *,
    base: float,
    milestones: Sequence[int],
    gamma: float,
    warmup_steps: int = 0,
    warmup_start: float = 0.0,
) -> float:
    """The value at a step: ``base``, multiplied by ``gamma`` from each milestone on, after a linear warm-up.

    Args:
        step: Counted from 0.
        base: Value before the first milestone.
        milestones: Steps.
        gamma: Factor at each milestone.
        warmup_steps: Length of the warm-up, as in :func:`cosine_schedule`.
        warmup_start: First value of the warm-up.
    """
    if step < warmup_steps:
        return _warmup(step, base, warmup_steps, warmup_start)
    return base * gamma ** sum(milestone <= step for milestone in milestones)


def teacher_temperature(epoch: int, *, start: float, end: float, warmup_epochs: int) -> float:
    """The temperature of the teacher's softmax in an epoch (DINO, Caron et al., ICCV 2021, section 3.2).

    The first ``warmup_epochs`` epochs are spaced evenly from ``start`` to ``end``, both included; then
    ``end``. A run may stop within the warm-up.

    Args:
        epoch: Counted from 0.
        start: Temperature of the first epoch of the warm-up.
        end: Temperature after the warm-up.
        warmup_epochs: Epochs of the warm-up; 0 for none.
    """
    return _warmup(epoch, end, warmup_epochs, start) if epoch < warmup_epochs else end


def _warmup(step: int, base: float, warmup_steps: int, warmup_start: float) -> float:
    """``warmup_steps`` values from ``warmup_start`` to ``base``, both included; one value is the start."""
    if warmup_steps == 1:
        return warmup_start
    return warmup_start + step * (base - warmup_start) / (warmup_steps - 1)
