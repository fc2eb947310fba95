"""Pages and pictures of results; they are made of plain data and need no network."""

from sslight.report.feature_space import SampledFeatures, nearest_images, normalized_rows
from sslight.report.report_file import ReportFile
from sslight.report.run_files import Run, is_run_folder, read_run
from sslight.report.run_page import Pictures, Results, Sheet
from sslight.report.run_summary import run_summary, used_gpus
from sslight.report.views_folder import ViewsFolder
from sslight.report.views_sheet import ShownImage, ShownView
from sslight.report.views_table import footnote, views_table

__all__ = [
    "Pictures",
    "ReportFile",
    "Results",
    "Run",
    "SampledFeatures",
    "Sheet",
    "ShownImage",
    "ShownView",
    "ViewsFolder",
    "footnote",
    "is_run_folder",
    "nearest_images",
    "normalized_rows",
    "read_run",
    "run_summary",
    "used_gpus",
    "views_table",
]
