"""``sslight views``: what a recipe makes of your images, before any training."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sslight.cli.terminal import AsJson, columns, say, show
from sslight.config import build_views_page, parse_assignments

if TYPE_CHECKING:
    from sslight.report.page import PageResult


def views(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Images: whatever data.train takes.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="recipe=NAME or [NAME, NAME] · output=FOLDER (views) · images=N to show (4) · draws=N (4000) · seed=N "
            "(0) · tar_image=SUFFIX · settings of views that differ from the recipe, such as views.local_size=112.",
        ),
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="A recipe, or the path of a YAML file; may be repeated.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show crops and views of a few images, and say whether views match: a page and numbers.

    A single recipe is shown beside its baseline; several are compared with the first one.
    """
    if "=" in data and not os.path.exists(data):  # noqa: PTH110 - never raises
        raise ValueError(f"{data} stands where the images belong: sslight views IMAGES recipe=... key=value ...")
    page, recipes = build_views_page(settings or [], recipe or [])
    paths = parse_assignments([f"data.train={data}"])["data.train"]
    from sslight.api.views import show_views_with

    result = show_views_with([paths] if isinstance(paths, str) else paths, page, recipes)
    show(result, {**result.content, "page": result.page}, _print_result, as_json=as_json)


def _print_result(result: "PageResult") -> None:
    from sslight.report.views.table import footnote, views_table

    recipes = result.content["recipes"]
    names = ["\n".join([*_better(recipe), recipe["name"], *recipe["changes"]]) for recipe in recipes]
    say(columns(("", *names), views_table(recipes)))
    say(f"\n{footnote(result.content)}")
    for recipe, name in zip(recipes, names, strict=True):
        say("\n" + name.replace("\n", " "), style="bold")
        if not recipe["mismatches"]:
            say(f"  no mismatch: {recipe['summary']}")
        for mismatch in recipe["mismatches"]:
            say(f"  {mismatch['sentence']}")
            if mismatch["proposal"]:
                say(f"    try {' '.join(mismatch['proposal'])}")
    if unreadable := result.content["images"]["unreadable"]:
        first = f"{unreadable[0]['location']} ({unreadable[0]['reason']})"
        say(f"\nunreadable, replaced by other images: {len(unreadable)}, such as {first}")
    say(f"\npage  {result.page}")


def _better(recipe: Mapping[str, Any]) -> list[str]:
    return ["better matched:"] if recipe["better"] else []
