"""What the original's views are: fixed operations pixel by pixel, and histograms of its draws."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FOLDER = Path(__file__).parents[1] / "golden" / "augmentation"
OPERATIONS: list[dict[str, Any]] = json.loads((FOLDER / "pixel_ops.json").read_text())["operations"]
STATISTICS: dict[str, Any] = json.loads((FOLDER / "statistics.json").read_text())


def pixels(name: str) -> npt.NDArray[np.uint8]:
    """An array [H, W, 3] of the recorded operations: in.image, out.N or out.eval_view."""
    with np.load(FOLDER / "pixel_ops.npz", allow_pickle=False) as arrays:
        return np.asarray(arrays[name], dtype=np.uint8)
