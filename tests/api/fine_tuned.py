"""Two classes of drawn images, and a tiny network fine-tuned on them."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import sslight
from sslight.api.finetune_run import FinetuneResult

TINY: dict[str, Any] = {
    "init": "random",
    "image_size": 32,
    "resize": 32,
    "epochs": 4,
    "batch_size": 16,
    "devices": "cpu",
    "workers": 0,
    "logger": "none",
    "log_every": 2,
}


def draw_stripes(root: Path, *, each: int, seed: int) -> Path:
    """Class folders of stripes that lie and stripes that stand, of any color, width and place, under noise."""
    rng = np.random.default_rng(seed)
    for name in ("lying", "standing"):
        (root / name).mkdir(parents=True)
        for number in range(each):
            waves = np.sin(np.arange(36) * rng.uniform(0.4, 0.9) + rng.uniform(0, 6))[:, None] * rng.uniform(60, 120, 3)
            image = np.broadcast_to(waves[:, None] if name == "lying" else waves[None], (36, 36, 3))
            noisy = image + 128 + rng.normal(0, 20, (36, 36, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / name / f"{number:03}.png")
    return root


def fine_tuned(folder: Path, start: str = "timm:test_resnet", **changes: Any) -> FinetuneResult:
    """A run of seconds on sets that are drawn in ``folder`` if they are not there."""
    if not (folder / "train").exists():
        draw_stripes(folder / "train", each=40, seed=0)
        draw_stripes(folder / "val", each=20, seed=1)
    settings = {"data": {"train": folder / "train", "val": folder / "val"}, "output": folder / "run", **TINY, **changes}
    result = sslight.finetune(start, settings)
    assert result is not None
    return result
