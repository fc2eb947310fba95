"""Views of images: where they are cut, how their colours change, and how they travel as a batch."""

from sslight.views.batch import ViewBatch, collate, normalise
from sslight.views.eval_view import centre_view
from sslight.views.multi_crop import MultiCrop, ViewParameters, build_multi_crop, warm_up

__all__ = [
    "MultiCrop",
    "ViewBatch",
    "ViewParameters",
    "build_multi_crop",
    "centre_view",
    "collate",
    "normalise",
    "warm_up",
]
