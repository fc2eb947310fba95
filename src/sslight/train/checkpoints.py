"""Checkpoints: the whole state of a run in one file that loads with ``weights_only=True``."""

import errno
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sslight.backbones import CHECKPOINT_FORMAT
from sslight.files import whole_file


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain data) to ``path``, whole or not at all.

    Raises:
        OSError: it cannot be written; the file that was there is intact.
    """
    try:
        with whole_file(path, "wb") as file:
            torch.save({"format": CHECKPOINT_FORMAT, **state}, file)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
        reason = getattr(error, "strerror", None) or "the disk may be full"
        kept = "; the checkpoint before it is intact" if path.exists() else ""
        raise OSError(errno.EIO, f"{reason}{kept}", str(path)) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state that :func:`save_checkpoint` wrote, on the CPU; nothing in the file is executed.

    Raises:
        ValueError: the file is damaged or not a checkpoint of this program.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"checkpoint {path} cannot be read ({reason}): use another one.") from None
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
        raise ValueError(f"{path} is not a checkpoint of this program.")
    return state


def random_state() -> dict[str, Any]:
    """States of all global random generators of this process (views and order have keyed streams of their own)."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 - it is the global one
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Put back what :func:`random_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
