"""What a recipe's views amount to on given images: overlap, object sizes, weights, cost."""

from sslight.preview.diagnostics import RATIO_EDGES, SHARE_EDGES, measure_views
from sslight.preview.matching import Mismatch, describe_match, find_mismatches
from sslight.preview.workload import measure_workload

__all__ = [
    "RATIO_EDGES",
    "SHARE_EDGES",
    "Mismatch",
    "describe_match",
    "find_mismatches",
    "measure_views",
    "measure_workload",
]
