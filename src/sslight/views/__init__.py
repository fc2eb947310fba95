"""Views of images: where they are cut, how their colours change, how they travel as a batch, what they amount to."""

from sslight.views.batch import ViewBatch, collate, normalise
from sslight.views.diagnostics import RATIO_EDGES, SHARE_EDGES, Distribution, ViewStatistics, measure_views
from sslight.views.eval_view import centre_view
from sslight.views.matching import Mismatch, describe_match, find_mismatches
from sslight.views.multi_crop import MultiCrop, ViewParameters, build_multi_crop, warm_up
from sslight.views.workload import Workload, measure_workload

__all__ = [
    "RATIO_EDGES",
    "SHARE_EDGES",
    "Distribution",
    "Mismatch",
    "MultiCrop",
    "ViewBatch",
    "ViewParameters",
    "ViewStatistics",
    "Workload",
    "build_multi_crop",
    "centre_view",
    "collate",
    "describe_match",
    "find_mismatches",
    "measure_views",
    "measure_workload",
    "normalise",
    "warm_up",
]
