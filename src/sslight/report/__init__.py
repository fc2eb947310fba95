"""Pages of results; they are made of plain data and need no network."""

from sslight.report.page import PageResult, check_page_file, check_page_folder
from sslight.report.run.feature_space import SampledFeatures, drawn_queries, spread_sample, thumbnail
from sslight.report.run.files import Run, is_run_folder, read_run
from sslight.report.run.page import Pictures, Results, Sheet, run_page
from sslight.report.run.registry import differences, find_runs, registry_page, registry_table
from sslight.report.run.summary import run_summary, used_gpus
from sslight.report.run.tables import classes_part
from sslight.report.views.page import views_page
from sslight.report.views.sheet import ShownImage, ShownView
from sslight.report.views.table import footnote, views_table

__all__ = [
    "PageResult",
    "Pictures",
    "Results",
    "Run",
    "SampledFeatures",
    "Sheet",
    "ShownImage",
    "ShownView",
    "check_page_file",
    "check_page_folder",
    "classes_part",
    "differences",
    "drawn_queries",
    "find_runs",
    "footnote",
    "is_run_folder",
    "read_run",
    "registry_page",
    "registry_table",
    "run_page",
    "run_summary",
    "spread_sample",
    "thumbnail",
    "used_gpus",
    "views_page",
    "views_table",
]
