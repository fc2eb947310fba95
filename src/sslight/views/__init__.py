"""Views of images: where they are cut, how their colors change, how they travel as a batch."""

from sslight.views.batch import ViewBatch, collate, normalize
from sslight.views.eval_view import center_view
from sslight.views.multi_crop import MultiCrop, ViewParameters, build_multi_crop, warm_up

__all__ = [
    "MultiCrop", "ViewBatch", "ViewParameters", "build_multi_crop", "center_view", "collate", "normalize", "warm_up",
]  # fmt: skip
