"""What to change when the device waits for data."""

import math

_WORTH_A_WORD = 0.10


def waiting_advice(share: float, *, workers: int, default: int, cores: int, on_gpu: bool) -> str | None:
    """One sentence that names the setting that helps, or None up to a tenth of the time (``share``) spent waiting.

    ``workers`` (and their ``default`` number) and ``cores`` are those for one training process, which on a CPU needs
    the cores itself.
    """
    if share <= _WORTH_A_WORD:
        return None
    waiting = f"{share:.0%} of the time went into waiting for data"
    if workers < default:
        return f"{waiting}: {too_few_workers(workers, default)}"
    smaller = "images stored at a smaller size (sslight data pack) and fewer views (views.num_local) make it faster"
    if on_gpu:
        wanted = math.ceil(workers / (1 - share)) + 1 if share < 1 else "many"
        needs = f"this GPU would need about {wanted} cores to stay busy"
        return f"{waiting} with {counted(workers)} on {cores} cores, and {needs}: {smaller}."
    return f"{waiting}, for training and {counted(workers)} share {cores} cores: {smaller}."


def too_few_workers(workers: int, default: int) -> str:
    """The remedy for a number of workers below the usual one."""
    return f"workers={workers} leaves cores idle; leave it out, which means {default} here."


def counted(workers: int) -> str:
    """``1 worker``, ``2 workers``."""
    return f"{workers} worker{'' if workers == 1 else 's'}"
