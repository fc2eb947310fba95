"""What to change when the device waits for data."""

_WORTH_A_WORD = 0.10


def waiting_advice(share: float, *, workers: int, cores: int, on_gpu: bool) -> str | None:
    """One sentence that names the setting that helps, or None up to a tenth of the time.

    Args:
        share: Of the time, in which the device waited for data.
        workers: Worker processes of this training process.
        cores: Of this machine, for each training process on it.
        on_gpu: Whether training leaves the cores to the workers.
    """
    if share <= _WORTH_A_WORD:
        return None
    waiting = f"{share:.0%} of the time went into waiting for data"
    if workers < cores:
        return f"{waiting}: workers={workers} leaves cores idle; set workers={cores}, or null."
    smaller = "images stored at a smaller size (sslight data pack) and fewer views (views.num_local) make it faster"
    if on_gpu:
        return f"{waiting} with {workers} workers on {cores} cores: {smaller}; so does a machine with more cores."
    return f"{waiting}, for training and {workers} workers share {cores} cores: {smaller}."
