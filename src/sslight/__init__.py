"""Self-supervised pre-training for small vision networks.

Public names are imported on first use, so that ``import sslight`` costs nothing.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if sys.platform in ("win32", "cygwin"):
    raise ImportError("sslight runs on Linux and not on Windows itself: install it in WSL 2, Windows' Linux.")

if TYPE_CHECKING:
    from sslight.api.detect import detect
    from sslight.api.evaluate import evaluate_backbone
    from sslight.api.export import export_backbone
    from sslight.api.finetune import finetune
    from sslight.api.finetune_run import FinetuneResult
    from sslight.api.plan import plan
    from sslight.api.predict import Embeddings, Predictions, embed, predict
    from sslight.api.pretrain import PretrainResult, pretrain
    from sslight.api.report import report_runs
    from sslight.api.select import Selection, select
    from sslight.api.views import show_views
    from sslight.backbones import load_backbone
    from sslight.evaluate import DetectionResult, EvaluationResult, knn_classify
    from sslight.methods import dino_loss, moco_loss, sinkhorn, swav_loss, update_center
    from sslight.optim import LARS, cosine_schedule
    from sslight.pretraining.planner import Plan
    from sslight.report.page import PageResult
    from sslight.train import Callback
    from sslight.views import MultiCrop

_HOMES = {
    "sslight.api.detect": ["detect"],
    "sslight.api.evaluate": ["evaluate_backbone"],
    "sslight.api.export": ["export_backbone"],
    "sslight.api.finetune": ["finetune"],
    "sslight.api.finetune_run": ["FinetuneResult"],
    "sslight.api.plan": ["plan"],
    "sslight.api.predict": ["Embeddings", "Predictions", "embed", "predict"],
    "sslight.api.pretrain": ["PretrainResult", "pretrain"],
    "sslight.api.report": ["report_runs"],
    "sslight.api.select": ["Selection", "select"],
    "sslight.api.views": ["show_views"],
    "sslight.backbones": ["load_backbone"],
    "sslight.evaluate": ["DetectionResult", "EvaluationResult", "knn_classify"],
    "sslight.methods": ["dino_loss", "moco_loss", "sinkhorn", "swav_loss", "update_center"],
    "sslight.optim": ["LARS", "cosine_schedule"],
    "sslight.pretraining.planner": ["Plan"],
    "sslight.report.page": ["PageResult"],
    "sslight.train": ["Callback"],
    "sslight.views": ["MultiCrop"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "LARS", "Callback", "DetectionResult", "Embeddings", "EvaluationResult", "FinetuneResult", "MultiCrop",
    "PageResult", "Plan", "Predictions", "PretrainResult", "Selection", "__version__", "cosine_schedule", "detect",
    "dino_loss", "embed", "evaluate_backbone", "export_backbone", "finetune", "knn_classify", "load_backbone",
    "moco_loss", "plan", "predict", "pretrain", "report_runs", "select", "show_views", "sinkhorn", "swav_loss",
    "update_center",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'sslight' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return __all__
