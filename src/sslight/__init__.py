"""Self-supervised pre-training for small vision networks.

Public names are imported on first use, so that ``import sslight`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sslight.api import PretrainResult, detect, evaluate_backbone, pretrain
    from sslight.backbones import load_backbone
    from sslight.delivery import export_backbone
    from sslight.evaluate import DetectionResult, Embeddings, EvaluationResult, embed, knn_classify
    from sslight.methods import dino_loss, moco_loss, sinkhorn, swav_loss, update_center
    from sslight.optim import LARS, cosine_schedule
    from sslight.preview import ViewsResult, show_views
    from sslight.review import ReportResult, report_runs
    from sslight.views import MultiCrop

_HOMES = {
    "DetectionResult": "sslight.evaluate",
    "Embeddings": "sslight.evaluate",
    "EvaluationResult": "sslight.evaluate",
    "LARS": "sslight.optim",
    "MultiCrop": "sslight.views",
    "PretrainResult": "sslight.api",
    "ReportResult": "sslight.review",
    "ViewsResult": "sslight.preview",
    "cosine_schedule": "sslight.optim",
    "detect": "sslight.api",
    "dino_loss": "sslight.methods",
    "embed": "sslight.evaluate",
    "evaluate_backbone": "sslight.api",
    "export_backbone": "sslight.delivery",
    "knn_classify": "sslight.evaluate",
    "load_backbone": "sslight.backbones",
    "moco_loss": "sslight.methods",
    "pretrain": "sslight.api",
    "report_runs": "sslight.review",
    "show_views": "sslight.preview",
    "sinkhorn": "sslight.methods",
    "swav_loss": "sslight.methods",
    "update_center": "sslight.methods",
}

__all__ = [
    "LARS",
    "DetectionResult",
    "Embeddings",
    "EvaluationResult",
    "MultiCrop",
    "PretrainResult",
    "ReportResult",
    "ViewsResult",
    "__version__",
    "cosine_schedule",
    "detect",
    "dino_loss",
    "embed",
    "evaluate_backbone",
    "export_backbone",
    "knn_classify",
    "load_backbone",
    "moco_loss",
    "pretrain",
    "report_runs",
    "show_views",
    "sinkhorn",
    "swav_loss",
    "update_center",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'sslight' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return __all__
