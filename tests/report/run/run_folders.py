"""Hand-made run folders: what a run writes, without training."""

import json
from pathlib import Path
from typing import Any

from sslight.config import load_recipe, to_yaml


def write_run(path: Path, *, lines: list[dict[str, Any]] | None = None, **changes: Any) -> Path:
    """A run of two epochs of ten steps, recorded at each; keyword ``changes`` are settings with ``__`` for dots."""
    path.mkdir(parents=True)
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    default = {"epochs": 2, "batch_size": 8, "output": str(path), "data.train": ["nowhere"], "optim.warmup_epochs": 1}
    settings = load_recipe("dino_cnn_sslight_64", {**default, **dotted})
    (path / "config.yaml").write_text(to_yaml(settings), encoding="utf-8")
    (path / "environment.json").write_text(
        json.dumps(
            {
                "command": ["/usr/bin/sslight", "pretrain", "dino_cnn_sslight_64", "epochs=2", "output=a b"],
                "python": "3.12.1",
                "gpus": [],
                "packages": {"torch": "2.9.0"},
            }
        ),
        encoding="utf-8",
    )
    write_metrics(path, two_epochs() if lines is None else lines)
    return path


def write_metrics(path: Path, lines: list[dict[str, Any]]) -> None:
    (path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def two_epochs() -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = [{"step": 0, "epoch": 0, "knn_top1": 5.0, "linear_top1": 7.0}]
    for step in range(1, 21):
        lines.append(
            {
                "step": step,
                "epoch": (step - 1) // 10,
                "loss": 8.0 - step / 10,
                "teacher_entropy": 0.9 - step / 100,
                "feature_spread": 0.5,
                "effective_rank": 5.0,
                "grad_norm": 2.0,
                "lr": 0.1,
                "momentum": 0.996,
                "images_per_second": 4.0 if step <= 10 else 8.0,
                "data_wait_share": 0.5 if step <= 10 else 0.0,
            }
        )
        if step % 10 == 0:
            lines.append({"step": step, "epoch": (step - 1) // 10, "knn_top1": 20.0 if step == 10 else 18.0})
    return lines
