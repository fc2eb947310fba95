"""Pages and pictures of results; they are made of plain data and need no network."""

from sslight.report.views_folder import ViewsFolder
from sslight.report.views_page import ShownImage, ShownView
from sslight.report.views_table import footnote, views_table

__all__ = ["ShownImage", "ShownView", "ViewsFolder", "footnote", "views_table"]
