"""``sslight recipes``: what recipes there are, and what one holds."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from sslight.config import Recipe, read_recipe, recipe_names

_COMPARED = {
    "method": "method",
    "backbone": "backbone",
    "optim.name": "optimiser",
    "lr": "lr / 256",
    "views.global_size": "global px",
    "views.local_size": "local px",
    "views.num_local": "locals",
    "views.global_scale": "global scale",
    "views.local_scale": "local scale",
    "global_pair_weight": "pair weight",
}


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
        if recipe.inherits is not None:
            changes = " · ".join(f"{key}={json.dumps(value)}" for key, value in recipe.changes.items())
            console.print(f"  differs:  from {recipe.inherits} in {changes}", markup=False)
    console.print()
    console.print(_differences(found))
    console.print("\n`sslight recipes NAME` prints one; `sslight pretrain NAME key=value ...` runs it.", markup=False)


def _differences(found: list[Recipe]) -> Table:
    """The settings in which recipes differ, a row each."""
    table = Table(box=None, pad_edge=False)
    for column in ("recipe", *_COMPARED.values()):
        table.add_column(column, no_wrap=True)
    for recipe in found:
        values = (recipe.values.get(key) for key in _COMPARED)
        table.add_row(recipe.name, *("mean" if v is None else json.dumps(v).strip('"') for v in values))
    return table
