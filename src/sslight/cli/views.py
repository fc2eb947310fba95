"""``sslight views``: what a recipe makes of your images, before any training."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sslight.config import build_views_page, parse_assignments

if TYPE_CHECKING:
    from sslight.report import PageResult


def views(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Images: whatever data.train takes.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="recipe=NAME or [NAME, NAME] · output=FOLDER (views) · images=N to show (4) · draws=N (4000) · seed=N "
            "(0) · settings of views that differ from the recipe, such as views.local_size=112.",
        ),
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="A recipe, or the path of a YAML file; may be repeated.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON on standard output.")] = False,
) -> None:
    """Show crops and views of a few images, and say whether views match: a page and numbers.

    A single recipe is shown beside its baseline; several are compared with the first one.
    """
    if "=" in data and not Path(data).exists():
        raise ValueError(f"{data} stands where the images belong: sslight views IMAGES recipe=... key=value ...")
    page, recipes = build_views_page(settings or [], recipe or [])
    paths = parse_assignments([f"data.train={data}"])["data.train"]
    from sslight.api.views import show_views_with

    result = show_views_with([paths] if isinstance(paths, str) else paths, page, recipes)
    if as_json:
        print(json.dumps({**result.content, "page": str(result.page)}))
    else:
        _print_result(result)


def _print_result(result: "PageResult") -> None:
    from sslight.report import footnote, views_table

    console = Console(soft_wrap=True, highlight=False)
    recipes = result.content["recipes"]
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for recipe in recipes:
        table.add_column("\n".join([*_better(recipe), recipe["name"], *recipe["changes"]]))
    for row in views_table(recipes):
        table.add_row(*row)
    console.print(table, markup=False)
    console.print()
    console.print(footnote(result.content), markup=False)
    for recipe in recipes:
        console.print()
        console.print(" ".join([*_better(recipe), recipe["name"], *recipe["changes"]]), style="bold", markup=False)
        if not recipe["mismatches"]:
            console.print(f"  no mismatch: {recipe['summary']}", markup=False)
        for mismatch in recipe["mismatches"]:
            console.print(f"  {mismatch['sentence']}", markup=False)
            if mismatch["proposal"]:
                console.print(f"    try {' '.join(mismatch['proposal'])}", markup=False)
    unreadable = result.content["images"]["unreadable"]
    if unreadable:
        first = f"{unreadable[0]['location']} ({unreadable[0]['reason']})"
        console.print(f"\nunreadable, replaced by other images: {len(unreadable)}, such as {first}", markup=False)
    console.print(f"\npage  {result.page}", markup=False)


def _better(recipe: Mapping[str, Any]) -> list[str]:
    return ["better matched:"] if recipe["better"] else []
