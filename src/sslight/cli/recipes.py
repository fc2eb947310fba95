"""``sslight recipes``: what recipes there are, and what one holds."""

import json
from typing import Annotated

import typer
from rich.console import Console

from sslight.config import read_recipe, recipe_names


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Print this recipe; without it, list all.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
) -> None:
    """List the recipes, or print one."""
    if name is not None:
        recipe = read_recipe(name)
        print(
            json.dumps({"name": name, "inherits": recipe.inherits, "values": recipe.values}) if as_json else recipe.text
        )
        return
    found = [read_recipe(each) for each in recipe_names()]
    if as_json:
        print(
            json.dumps(
                [{"name": r.name, "inherits": r.inherits, "header": r.header, "changes": r.changes} for r in found]
            )
        )
        return
    console = Console(soft_wrap=True, highlight=False)
    for recipe in found:
        console.print(recipe.name, style="bold", markup=False)
        for line in recipe.header:
            console.print(f"  {line}", markup=False)
    console.print("\n`sslight recipes NAME` prints one; `sslight pretrain NAME key=value ...` runs it.", markup=False)
