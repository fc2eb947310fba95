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
        return linear_warmup(step, start=warmup_start, end=base, num_steps=warmup_steps)
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

    Steps and milestones count from 0; the warm-up is that of :func:`cosine_schedule`.
    """
    if step < warmup_steps:
        return linear_warmup(step, start=warmup_start, end=base, num_steps=warmup_steps)
    return base * gamma ** sum(milestone <= step for milestone in milestones)


def linear_warmup(step: int, *, start: float, end: float, num_steps: int) -> float:
    """``num_steps`` values, evenly from ``start`` to ``end``, both included (one alone is the start); then ``end``.

    By epochs it is the temperature of DINO's teacher (Caron et al., ICCV 2021, section 3.2).
    """
    if step >= num_steps:
        return end
    return start if num_steps == 1 else start + step * (end - start) / (num_steps - 1)
