"""Numbers recorded from the original implementation, and how far ours may be from them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent


def read_arrays(path: str) -> dict[str, Tensor]:
    """The arrays of an ``.npz`` file, by name."""
    with np.load(GOLDEN / path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}


def read_json(path: str) -> Any:
    """The content of a JSON file."""
    return json.loads((GOLDEN / path).read_text(encoding="utf-8"))


def deviation(actual: Tensor | float, expected: Tensor | float) -> float:
    """Largest difference relative to the largest expected magnitude (absolute where all are zero)."""
    actual = torch.as_tensor(actual, dtype=torch.float64).detach()
    expected = torch.as_tensor(expected, dtype=torch.float64)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    scale = float(expected.abs().max()) or 1.0
    difference = float((actual - expected).abs().max())
    assert difference == difference, "not a number"
    return difference / scale


def assert_near(actual: Tensor | float, expected: Tensor | float, tolerance: float, what: str = "") -> None:
    """Fail if the deviation is above the tolerance."""
    value = deviation(actual, expected)
    assert value <= tolerance, f"{what}: deviation {value:.3g} above {tolerance:.3g}"


def part(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The arrays whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
