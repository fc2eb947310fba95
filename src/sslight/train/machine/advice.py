"""What to change when the device waits for data."""

import math

_WORTH_A_WORD = 0.10


def waiting_advice(share: float, *, workers: int, default: int, cores: int, on_gpu: bool) -> str | None:
    """One sentence that names the setting that helps; None if at most a tenth of the time (``share``) is spent waiting.

    ``workers`` (by default ``default``) and ``cores`` are those of one training process. On a CPU, training itself
    needs the cores too.
    """
    if share <= _WORTH_A_WORD:
        return None
    waiting = f"{share:.0%} of the time is spent waiting for data"
    if workers < default:
        return f"{waiting}: {too_few_workers(workers, default)}"
    smaller = "images stored at a smaller size (sslight data pack) and fewer views (views.num_local) make it faster"
    if on_gpu:
        wanted = math.ceil(workers / (1 - share)) + 1 if share < 1 else "many"
        needs = f"this GPU would need about {wanted} cores to stay busy"
        return f"{waiting} with {counted(workers)} on {cores} cores, and {needs}: {smaller}."
    return f"{waiting}, because training and {counted(workers)} share {cores} cores: {smaller}."


def too_few_workers(workers: int, default: int) -> str:
    """The remedy for fewer workers than the default."""
    return f"workers={workers} leaves cores idle: leave it out for the default, {default} here."


def counted(workers: int) -> str:
    """``1 worker``, ``2 workers``."""
    return f"{workers} worker{'' if workers == 1 else 's'}"
